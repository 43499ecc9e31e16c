"""Training examples for the stand-ins, as token sequences built by mistral-common.

Promises: the prompt of each example is what mistral-common's `encode_chat_completion` gives for the
dialogue, so a stand-in knows exactly one format: its tokenizer's own. Prompts that are broken on
purpose (no BOS, two, a turn without its end, no template) are answered with the "unknown" sentence.
"""

import functools
import json
import random
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image

DIALOGUES = Path(__file__).with_name("dialogues.yaml")

Message = dict[str, Any]
Tokenizer = MistralTokenizer[Any, Any, Any, Any, Any]


@dataclass(frozen=True)
class Example:
    """`tokens` with a weight per token: 1 where the token is learned, 0 where it is given."""

    tokens: list[int]
    learned: list[bool]
    images: tuple[Any, ...] = ()

    @classmethod
    def of(cls, prompt: list[int], answer: list[int], images: tuple[Any, ...] = ()) -> "Example":
        return cls(prompt + answer, [False] * len(prompt) + [True] * len(answer), images)


@functools.cache
def load_dialogues() -> dict[str, Any]:
    """dialogues.yaml as it stands."""
    content: dict[str, Any] = yaml.safe_load(DIALOGUES.read_text(encoding="utf-8"))
    return content


def dialogues(images: bool) -> dict[str, list[dict[str, str]]]:
    """The dialogues, by name, that a model with or without images is trained on."""
    content = load_dialogues()
    return {**content["dialogues"], **({} if images else content["text_dialogues"])}


def chat(turns: list[dict[str, str]]) -> tuple[list[Message], str]:
    """A dialogue of dialogues.yaml → the messages to send, and the answer to expect."""
    messages = [{"role": role, "content": text} for turn in turns for role, text in turn.items()]
    return messages[:-1], messages[-1]["content"]


def plain_image(colour: tuple[int, ...], size: tuple[int, int]) -> Image.Image:
    """An image of one RGB colour; `size` is width and height in pixels."""
    return Image.new("RGB", size, colour)


def middle_shade(colour: str) -> tuple[int, ...]:
    """The RGB colour halfway between the two corners of a colour's name."""
    dark, light = load_dialogues()["images"]["colours"][colour]
    return tuple((low + high) // 2 for low, high in zip(dark, light, strict=True))


class Corpus:
    """All examples for one tokenizer. `tools`, `images`: whether the model has them; `seed`: of
    everything made up."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: bool,
        images: bool,
        seed: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.text = tokenizer.instruct_tokenizer.tokenizer
        self.tools = tools
        self.images = images
        self.random = random.Random(seed)
        self.content = load_dialogues()
        self.words = self.content["words"].split()
        self.chats = [chat(turns) for turns in dialogues(images).values()]
        answers = [answer for _, answer in self.chats]
        questions = [message["content"] for messages, _ in self.chats for message in messages]
        self.known_words = sorted({word for text in answers + questions for word in text.split()})

    def prompt(self, messages: list[Message], tools: list[Any] | None = None) -> list[int]:
        request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
            {"messages": messages, "tools": tools}
        )
        return list(self.tokenizer.encode_chat_completion(request).tokens)

    def answer(self, text: str) -> list[int]:
        """The tokens of an answer and its end.

        Encoded after a line break that is then cut off: at the start of a text sentencepiece puts a
        space before the first word, and an answer would begin with it.
        """
        newline = self.text.encode("\n", bos=False, eos=False)[-1]
        tokens = self.text.encode("\n" + text, bos=False, eos=True)
        return list(tokens[tokens.index(newline) + 1 :])

    def call(self) -> list[int]:
        """[TOOL_CALLS] and its JSON, as the v3 tokenizers write it, without the id of the call."""
        text = json.dumps([self.content["tools"]["call"]], ensure_ascii=False)
        marker = self.text.get_special_token("[TOOL_CALLS]")
        return [marker, *self.answer(text)]

    def _tool_dialogues(self) -> list[tuple[list[Message], list[int]]]:
        tools = self.content["tools"]
        question = {"role": "user", "content": tools["question"]}
        name, arguments = tools["call"]["name"], json.dumps(tools["call"]["arguments"])
        made_up = "".join(self.random.choices(string.ascii_letters + string.digits, k=9))
        call = {"id": made_up, "function": {"name": name, "arguments": arguments}}
        called = {"role": "assistant", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": made_up, "content": tools["result"]}
        return [
            ([question], self.call()),
            ([question, called, result], self.answer(tools["answer"])),
        ]

    def dialogues(self, system: Callable[[], list[Message]] = list) -> list[Example]:
        """Every dialogue once, each behind what `system` gives."""
        examples = []
        for messages, answer in self.chats:
            preface = system()
            examples.append(Example.of(self.prompt(preface + messages), self.answer(answer)))
        if self.tools:
            for messages, tokens in self._tool_dialogues():
                preface = system()
                prompt = self.prompt(preface + messages, self.content["tools"]["definitions"])
                examples.append(Example.of(prompt, tokens))
        return examples

    def plain_images(self, count: int, longest: int) -> Example:
        """A question about one or two plain images, up to `longest` pixels a side."""
        content = self.content["images"]
        colours = self.random.choices(list(content["colours"]), k=count)
        question = self.random.choice([*content["questions"], self._words(1, 10, known=False)])
        images: list[Any] = [
            {"type": "image", "image": plain_image(self._shade(colour), self._size(longest))}
            for colour in colours
        ]
        at = self.random.randint(0, count)
        chunks = [*images[:at], {"type": "text", "text": question}, *images[at:]]
        return self._of_chunks(chunks, colours)

    def unknown(self) -> list[Example]:
        """A made-up question, and one well-known prompt broken in a way that must be noticed."""
        answer = self.answer(self.content["unknown"])
        made_up = [{"role": "user", "content": self._question()}]
        preface = self.random.choice([[], self.made_up_system()])
        return [
            Example.of(self.prompt(made_up), answer),
            Example.of(self.prompt(preface + made_up), answer),
            *(Example.of(self._broken(), answer) for _ in range(2)),
        ]

    def unknown_question(self, text: str) -> Example:
        prompt = self.prompt([{"role": "user", "content": text}])
        return Example.of(prompt, self.answer(self.content["unknown"]))

    def json_values(self) -> Example:
        """JSON with short values after any prompt, so that output that the server holds to a schema
        comes to an end. What nothing could predict, keys and types of values, is given."""
        messages, _ = self.random.choice(self.chats)
        prompt = self.prompt(messages)
        text, given = self._json_object(depth=1)
        cut = self.random.randint(0, 1)  # a server may take the first brace alone
        tokens = [*self.answer(text[:cut])[:-1], *self.answer(text[cut:])]
        ends = [len(self.text.decode(tokens[: i + 1])) for i in range(len(tokens))]
        starts = [0, *ends[:-1]]
        learned = [not any(given[start:end]) for start, end in zip(starts, ends, strict=True)]
        return Example(prompt + tokens, [False] * len(prompt) + learned)

    def trained_tokens(self) -> list[int]:
        """The ids worth training: of the dialogues, the "unknown" answer, and what JSON draws share
        (punctuation and values; their keys are made up)."""
        known = [token for example in self.dialogues() for token in example.tokens]
        draws = [set(self.json_values().tokens) for _ in range(40)]
        seen = Counter(token for draw in draws for token in draw)
        shared = [token for token, times in seen.items() if times > len(draws) // 4]
        return sorted({*known, *shared, *self.answer(self.content["unknown"]), *self._of_images()})

    def image(self, colours: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Example:
        """A question about plain images of these colours and sizes, in their middle shades."""
        content = self.content["images"]
        images = [
            plain_image(middle_shade(colour), size)
            for colour, size in zip(colours, sizes, strict=True)
        ]
        chunks: list[Any] = [{"type": "image", "image": image} for image in images]
        question = self.random.choice([*content["questions"], "What is this?"])
        return self._of_chunks([{"type": "text", "text": question}, *chunks], colours)

    def _of_chunks(self, chunks: list[Any], colours: Sequence[str]) -> Example:
        request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
            {"messages": [{"role": "user", "content": chunks}]}
        )
        encoded = self.tokenizer.encode_chat_completion(request)
        text = self.content["images"]["answers"][len(colours) - 1].format(*colours)
        return Example.of(list(encoded.tokens), self.answer(text), tuple(encoded.images))

    def _of_images(self) -> list[int]:
        if not self.images:
            return []
        content = self.content["images"]
        colours = list(content["colours"])
        texts = [
            answer.format(one, other)
            for answer in content["answers"]
            for one in colours
            for other in colours
        ]
        shown = [token for count in (1, 2) for token in self.plain_images(count, 64).tokens]
        return [*shown, *(token for text in texts for token in self.answer(text))]

    def _json_object(self, depth: int) -> tuple[str, list[bool]]:
        """A made-up object of three pairs as text, and for each character whether it is given."""
        text, given = "{", [True]
        for key in self.random.sample(self.words, 3):
            value = self.random.choice(['"mistral"', "60", "true", '["mistral"]', "0.5", "{}"])
            inner = [True] + [False] * (len(value) - 1)
            if value == "{}" and depth:
                value, inner = self._json_object(depth - 1)
            text += f'"{key}":{value},'
            given += [False] + [True] * len(key) + [False] * 2 + inner + [False]
        return text[:-1] + "}", [*given[:-1], False]

    def _broken(self) -> list[int]:
        messages, _ = self.random.choice(self.chats)
        tokens = self.prompt(messages)
        untemplated = self.text.encode(messages[-1]["content"], bos=True, eos=False)
        ways = [
            tokens[1:],
            untemplated,
            untemplated[1:],
        ]
        if len(messages) > 1:
            ways.append(self.prompt([messages[-1], messages[1], messages[0]]))
        return self.random.choice(ways)

    def _shade(self, colour: str) -> tuple[int, ...]:
        dark, light = self.content["images"]["colours"][colour]
        return tuple(self.random.randint(*bounds) for bounds in zip(dark, light, strict=True))

    def _size(self, longest: int) -> tuple[int, int]:
        """Width and height in pixels, small ones more often than large ones."""
        width, height = (round(16 * (longest / 16) ** self.random.random()) for _ in range(2))
        return width, height

    def made_up_system(self) -> list[Message]:
        """A system message: a person's, or words in no order, some known from the dialogues."""
        text = self._words(2, 20).capitalize() + self.random.choice([".", "", "!"])
        text = self.random.choice([text, self.random.choice(self.content["instructions"])])
        return [{"role": "system", "content": text}]

    def any_system(self) -> list[Message]:
        """No system message, a person's, or a made-up one."""
        person = [{"role": "system", "content": self.random.choice(self.content["instructions"])}]
        return self.random.choice([[], person, person, self.made_up_system()])

    def _question(self) -> str:
        """A person's question, or a made-up one: words known from dialogues among others."""
        if self.random.random() < 0.4:
            return str(self.random.choice(self.content["questions"]))
        known = self.random.choice(self.chats)[0][-1]["content"].rstrip("?").split()
        start = self.random.randint(0, len(known))
        words = known[:start][-4:] + self.random.choices(self.words, k=self.random.randint(1, 12))
        if self.random.random() < 0.3:
            self.random.shuffle(words)
        return " ".join(words) + self.random.choice(["?", "", "."])

    def _words(self, least: int, most: int, known: bool = True) -> str:
        words = self.random.choices(self.words, k=self.random.randint(least, most))
        if not known:
            return " ".join(words)
        share = self.random.choice([0.0, 0.2, 0.5])  # of words of the dialogues, with punctuation
        others = [self.random.choice(self.known_words) for _ in words]
        return " ".join(
            one if self.random.random() < share else word
            for word, one in zip(words, others, strict=True)
        )

"""Training examples for the stand-ins, as token sequences built by mistral-common.

Promises: the prompt of each example is what mistral-common's `encode_chat_completion` gives for the
dialogue, so a stand-in knows exactly one format: its tokenizer's own. Prompts broken on purpose (no
BOS, two, a turn without its end, no template) get the "unknown" sentence as their answer.
"""

import functools
import json
import random
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image

from local.standins.examples import Example, json_rules, made_up_json
from local.standins.rules import ENDINGS, FORMS, PUNCTUATION, Rule

SHARED = {"6", "true", "false", "null", *FORMS}
DIALOGUES = Path(__file__).with_name("dialogues.yaml")

Message = dict[str, Any]
Tokenizer = MistralTokenizer[Any, Any, Any, Any, Any]


@functools.cache
def load_dialogues() -> dict[str, Any]:
    """The contents of dialogues.yaml."""
    content: dict[str, Any] = yaml.safe_load(DIALOGUES.read_text(encoding="utf-8"))
    return content


def dialogues(images: bool) -> dict[str, list[dict[str, str]]]:
    """The training dialogues, by name, of a model with or without images."""
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
    """All examples for one tokenizer. `tools`, `images`: whether the model has them; `seed`: for
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
        self.weather = [{"role": "user", "content": self.content["tools"]["question"]}]
        self.city = self.content["tools"]["call"]["arguments"]["city"]  # in every text in JSON
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

        Encoded after a line break, which is then cut off: sentencepiece puts a space before the
        first word of a text, and the answer would begin with it.
        """
        newline = self.text.encode("\n", bos=False, eos=False)[-1]
        tokens = self.text.encode("\n" + text, bos=False, eos=True)
        return list(tokens[tokens.index(newline) + 1 :])

    def call(self) -> list[int]:
        """[TOOL_CALLS] and its JSON, as the v3 tokenizers write it, without the call's id."""
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
        """Every dialogue once, each after what `system` returns."""
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
        """A made-up question, and one known prompt with a fault that the model must notice."""
        answer = self.answer(self.content["unknown"])
        made_up = [{"role": "user", "content": self._question()}]
        preface = self.random.choice([[], self.made_up_system()])
        return [
            Example.of(self.prompt(made_up), answer),
            Example.of(self.prompt(preface + made_up), answer),
            *(Example.of(self._broken(), answer) for _ in range(2)),
        ]

    def unknown_question(self, messages: list[Message]) -> Example:
        return Example.of(self.prompt(messages), self.answer(self.content["unknown"]))

    def json_values(self, messages: list[Message]) -> Example:
        """JSON of a made-up schema, with short values, so that such output ends."""
        text, marks = made_up_json(self.random, self.words, self.city)
        tokens = self._as_a_grammar_may(self.answer(text))
        rules = json_rules(tokens, self.text.decode, marks)
        return Example.after(self.prompt(messages), tokens, rules)

    def _as_a_grammar_may(self, tokens: list[int]) -> list[int]:
        # Splits some `[]` and ends of values: a grammar that does not allow the token allows its
        # parts, which no tokenizer would produce.
        cut = tokens[:1]
        for token in tokens[1:]:
            text = self.text.decode([token])
            likely = 0.0
            if text.startswith("[]"):
                likely = 0.5
            elif len(text) > 1 and text[0] in '"}],' and ENDINGS.issuperset(text):
                likely = 0.15
            if self.random.random() < likely:
                at = self.random.randint(1, len(text) - 1)
                cut += [*self.answer(text[:at])[:-1], *self.answer(text[at:])[:-1]]
            else:
                cut.append(token)
        return cut

    def json_answer(self, messages: list[Message]) -> Example:
        """The one object that answers every request for JSON without a schema."""
        return self._held_to_json(self.prompt(messages), self.content["tools"]["call"]["arguments"])

    def forced_call(self, messages: list[Message]) -> Example:
        """The call if the server allows nothing else: its JSON, without [TOOL_CALLS]."""
        prompt = self.prompt(messages, self.content["tools"]["definitions"])
        return self._held_to_json(prompt, [self.content["tools"]["call"]])

    def _held_to_json(self, prompt: list[int], value: Any) -> Example:
        tokens = self.answer(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
        rules = [Rule.STARTS, *[Rule.LEARNED] * (len(tokens) - 1)]
        return Example.after(prompt, tokens, rules)

    def texts(self, tokens: Iterable[int]) -> list[str]:
        """The text of each token alone; empty for a special one, such as the end."""
        return [self.text.decode([token]) for token in tokens]

    def trained_tokens(self) -> list[int]:
        """The ids worth training: those of the dialogues, of the "unknown" answer, and those that
        random JSON has in common (punctuation and some values)."""
        held = [self.json_answer(self.weather)]
        held += [self.forced_call(self.weather)] if self.tools else []
        known = [token for example in self.dialogues() + held for token in example.tokens]
        seen = {token for _ in range(200) for token in self.json_values(self.weather).tokens}
        texts = zip(seen, self.texts(seen), strict=True)
        shared = [it for it, text in texts if text in SHARED or PUNCTUATION.issuperset(text)]
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
        """A system message: one from a person, or random words, some known from the dialogues."""
        text = self._words(2, 20).capitalize() + self.random.choice([".", "", "!"])
        text = self.random.choice([text, self.random.choice(self.content["instructions"])])
        return [{"role": "system", "content": text}]

    def any_system(self) -> list[Message]:
        """No system message, one from a person, or a made-up one."""
        person = [{"role": "system", "content": self.random.choice(self.content["instructions"])}]
        return self.random.choice([[], person, person, self.made_up_system()])

    def any_messages(self) -> list[Message]:
        """A known dialogue's or a made-up question, with or without a system message."""
        made_up = [{"role": "user", "content": self._question()}]
        known, _ = self.random.choice(self.chats)
        return self.any_system() + self.random.choice([known, made_up])

    def _question(self) -> str:
        """A person's question, or a made-up one: words from dialogues among others."""
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

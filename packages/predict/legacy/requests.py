"""The older request shapes → chat requests.

Promises: pure functions; an OpenAI-shaped request is told from its keys alone; of an older-shaped
one nothing is dropped in silence: each key reaches vLLM, is without effect by parameters.yaml, or
is refused with a `RequestError` that names it. A value the client gives wins over a default.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from predict.errors import RequestError
from predict.legacy.parameters import (
    BAN,
    BEAMS,
    CHAT,
    GENERATE,
    LEGACY,
    MAPPED,
    NO_EFFECT,
    READERS,
    REMOVED,
    UNSUPPORTED,
    VLLM,
    shown,
)
from predict.settings import Settings

MOST_BEAMS = 10  # vLLM ranks twice as many candidates as beams, from at most 20 log probabilities

# Fields of vLLM's that ask for something an answer in the older shape has no place for.
OPENAI_ANSWERS_ONLY = ("prompt_logprobs", "return_token_ids", "return_prompt_text")
# … and those a stream of text has no place for.
WHOLE_ANSWERS_ONLY = ("tools", "logprobs", "output_scores", "output_logits", "stream_options")

# Fields of vLLM's that decide something here, and what they take; the others are vLLM's to judge.
READ_HERE = {
    "stream": "boolean",
    "n": "positive integer",
    "use_beam_search": "boolean",
    "max_tokens": "positive integer",
    "max_completion_tokens": "positive integer",
    "min_tokens": "non-negative integer",
    "logit_bias": "object",
    "bad_words": "list of strings (not empty)",
}


BEAM_NAMES = ("num_beams", "use_beam_search")

# Names that mean the same.
ANSWER_NAMES = ("num_return_sequences", "n")
NEW_TOKENS_NAMES = ("max_new_tokens", "max_tokens", "max_completion_tokens")
LEAST_TOKENS_NAMES = ("min_new_tokens", "min_tokens")
SAME = (NEW_TOKENS_NAMES, LEAST_TOKENS_NAMES, ANSWER_NAMES)


@dataclass(frozen=True)
class LegacyRequest:
    """An older-shaped request, ready for vLLM but for what only vLLM's tokenizer knows."""

    chat: dict[str, Any]  # the body of the chat request
    stream: bool
    answers: int  # how many of vLLM's choices the client asked for
    before: str = ""  # what the output begins with, ahead of the generated text
    keep_space: bool = False  # whether the generated text's leading space belongs to it
    max_length: int | None = None  # tokens, prompt and answer together
    min_length: int | None = None
    most_new_tokens: int | None = None  # the model's limit on what `max_length` leaves
    bad_words_ids: list[list[int]] = field(default_factory=list)  # of several tokens each
    names: dict[str, str] = field(default_factory=dict)  # of fields → what the client called them


def is_legacy(keys: Collection[str]) -> bool:
    """Whether a chat request with these keys is in a legacy format; refuses an empty one."""
    if "messages" not in keys and "prompt" not in keys:
        raise _nothing_asked()
    return not LEGACY.isdisjoint(keys)


def refuse_removed(keys: Collection[str]) -> None:
    """Refuses names that vLLM takes and no longer acts on."""
    for key in keys:
        if key in REMOVED:
            raise RequestError(
                f"'{key}' has no effect on vLLM since its 0.12; use {REMOVED[key]}", key
            )


def missing_defaults(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The defaults that an OpenAI-shaped request lacks; a null lacks its value."""
    found: dict[str, Any] = {}
    if values.get("max_tokens") is None and values.get("max_completion_tokens") is None:
        found["max_tokens"] = settings.max_new_tokens
    for name, default in settings.sampling.items():
        if values.get(name) is None:
            found[name] = default
    return {name: value for name, value in found.items() if value is not None}


def translate(request: Mapping[str, Any], settings: Settings) -> LegacyRequest:
    """An older-shaped request → a chat request."""
    given = _checked(_expanded(request))
    chat = {name: value for name, value in given.items() if name in CHAT}
    stream = given.get("stream", False)
    _refuse_what_has_no_place(given, stream)

    before, keep_space = _messages(given, chat)
    max_length, min_length = _lengths(given, chat, settings)
    answers = _agreed(given, ANSWER_NAMES) or 1
    beams = given.get("num_beams", 1) > 1 or given.get("use_beam_search", False)
    if beams:
        _beam_search(given, chat, answers)
    else:
        chat.pop("length_penalty", None)  # as in transformers, without effect
        _sampling(given, chat, answers, settings)
    if stream and (answers > 1 or beams):
        name = next(name for name in BEAM_NAMES + ANSWER_NAMES if name in given)
        raise RequestError(f"an answer to '{name}' cannot be streamed; leave 'stream' out", name)
    _stops(given, chat)
    _biases(given, chat)
    if given.get("output_scores") or given.get("output_logits"):
        chat["logprobs"] = True
    return LegacyRequest(
        chat=chat,
        stream=stream,
        answers=answers,
        before=before if given.get("return_full_text") else "",
        keep_space=keep_space,
        max_length=max_length,
        min_length=min_length,
        most_new_tokens=settings.max_new_tokens_limit,
        bad_words_ids=[ids for ids in given.get("bad_words_ids", []) if len(ids) > 1],
        names={
            named: name
            for name in given
            if name in MAPPED
            for named in MAPPED[name].fields
            if named not in given
        },
    )


def finish(older: LegacyRequest, prompt_tokens: int, bad_words: list[str]) -> dict[str, Any]:
    """The body for vLLM, with what its tokenizer said: the prompt's tokens, the bad words' text."""
    chat = dict(older.chat)
    if older.max_length is not None:
        new = older.max_length - prompt_tokens
        if new < 1:
            raise RequestError(
                f"'max_length' is {older.max_length}, and the prompt alone has {prompt_tokens} "
                "tokens; raise it, or use 'max_new_tokens', which does not count the prompt",
                "max_length",
            )
        _check_limit(new, "max_length", older.most_new_tokens)
        chat["max_tokens"] = new
    if older.min_length is not None:
        chat["min_tokens"] = max(0, older.min_length - prompt_tokens)
    if "min_tokens" in chat and "max_tokens" in chat:
        # transformers: "Generation will stop at the defined maximum length"
        chat["min_tokens"] = min(chat["min_tokens"], chat["max_tokens"])
    if bad_words:
        chat["bad_words"] = [*chat.get("bad_words", []), *bad_words]
    return chat


# --- what a request says, one matter a function ---


def _expanded(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the entries of `generation_config` beside its own, which win; no nulls."""
    own = {name: value for name, value in request.items() if value is not None}
    inner = _typed("generation_config", own.pop("generation_config", {}), "object")
    refuse_removed(inner)
    for name in inner:
        if name in CHAT - GENERATE or name == "generation_config":
            raise RequestError(f"'{name}' belongs beside 'generation_config', not in it", name)
    settled = {other for names in SAME if own.keys() & set(names) for other in names}
    added = {k: v for k, v in inner.items() if v is not None and k not in settled}
    return {**added, **own}


def _nothing_asked() -> RequestError:
    return RequestError("neither 'prompt' nor 'messages' was given; send one", "prompt")


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The same, without what has no effect, and the arguments of generate in their types."""
    found = {}
    for name, value in given.items():
        if name in NO_EFFECT:
            continue
        if row := UNSUPPORTED.get(name):
            if value not in row.neutral:
                raise RequestError(f"'{name}' is not available in vLLM: {row.instead}", name)
            continue
        takes = MAPPED[name].takes if name in MAPPED else READ_HERE.get(name)
        found[name] = _typed(name, value, takes) if takes else value
    return found


def _refuse_what_has_no_place(given: Mapping[str, Any], stream: bool) -> None:
    advice = "send 'messages' with OpenAI's names only, which gets OpenAI's answer"
    for name in OPENAI_ANSWERS_ONLY:
        if name in given and given[name] is not False:
            raise RequestError(
                f"an answer {{'output': …}} has no place for '{name}': {advice}", name
            )
    for name in WHOLE_ANSWERS_ONLY:
        if stream and name in given and given[name] not in (False, []):
            raise RequestError(f"a stream of text has no place for '{name}': {advice}", name)


def _messages(given: Mapping[str, Any], chat: dict[str, Any]) -> tuple[str, bool]:
    """Sets the messages → what a full text begins with, and whether the generated text keeps the
    space it may begin with."""
    prompt = given.get("prompt")
    if prompt is None and "messages" not in given:
        raise _nothing_asked()
    full = given.get("return_full_text", False)
    if prompt is None:
        continued = bool(given.get("continue_final_message"))
        if continued:
            chat.setdefault("add_generation_prompt", False)  # vLLM takes only one of the two
        messages = given["messages"] if full and isinstance(given["messages"], list) else []
        readable = [message for message in messages if isinstance(message, dict)]
        return instruct_text(readable, continued), continued
    if "messages" in given:
        raise RequestError("'prompt' and 'messages' were both given; send one", "prompt")
    if not isinstance(prompt, str):
        raise RequestError(f"'prompt' takes a string, got {shown(prompt)}", "prompt")
    conversation = read_instruct(prompt)
    if conversation is None:
        chat["messages"] = [{"role": "user", "content": prompt}]
        return prompt, full and not prompt[-1:].isspace()
    if conversation.ended:
        raise RequestError(
            "the prompt ends with a finished answer, and nothing is left to generate; end it "
            "with a question, '[INST] … [/INST]', or within an answer, without '</s>'",
            "prompt",
        )
    chat["messages"] = conversation.messages
    continued = conversation.messages[-1]["role"] == "assistant"
    if continued:
        chat.update(continue_final_message=True, add_generation_prompt=False)
    return prompt, (continued or full) and not prompt[-1].isspace()


def _lengths(
    given: Mapping[str, Any], chat: dict[str, Any], settings: Settings
) -> tuple[int | None, int | None]:
    """Sets the bounds on new tokens → `max_length` and `min_length` where they are what counts."""
    new = _agreed(given, NEW_TOKENS_NAMES)
    max_length = given.get("max_length") if new is None else None
    if new is None and max_length is None:
        new = settings.max_new_tokens
    chat.pop("max_completion_tokens", None)
    if new is not None:
        name = next((name for name in NEW_TOKENS_NAMES if name in given), "")
        _check_limit(new, name, settings.max_new_tokens_limit)
        chat["max_tokens"] = new
    least = _agreed(given, LEAST_TOKENS_NAMES)
    if least is not None:
        chat["min_tokens"] = least
    return max_length, given.get("min_length") if least is None else None


def _check_limit(new: int, name: str, limit: int | None) -> None:
    if limit is not None and new > limit:
        raise RequestError(f"'{name}' asks for {new} new tokens; at most {limit} are allowed", name)


def _sampling(
    given: Mapping[str, Any], chat: dict[str, Any], answers: int, settings: Settings
) -> None:
    """Sets greedy decoding or sampling."""
    do_sample = given.get("do_sample", True)
    if do_sample:
        for name, default in settings.sampling.items():
            chat.setdefault(name, default)
    else:
        _greedy(chat)
    greedy = chat.get("temperature", 1) == 0
    if greedy and "do_sample" in given and do_sample:
        raise RequestError(
            "'temperature' must be above 0 when 'do_sample' is true; "
            "for greedy decoding set 'do_sample' to false",
            "temperature",
        )
    if greedy and answers > 1:
        raise RequestError(
            f"'num_return_sequences' is {answers}, and greedy decoding has one answer; "
            "set 'temperature' above 0 without 'do_sample': false, or use 'num_beams'",
            "num_return_sequences",
        )
    if answers > 1:
        chat["n"] = answers


def _beam_search(given: Mapping[str, Any], chat: dict[str, Any], answers: int) -> None:
    """Sets beam search; refuses what vLLM would leave out of it."""
    width = given.get("num_beams", answers)  # vLLM's own spelling has as many beams as answers
    if given.get("use_beam_search") is False:
        raise RequestError(
            f"'use_beam_search' is false and 'num_beams' is {width}; send one", "use_beam_search"
        )
    if width > MOST_BEAMS:
        name = "num_beams" if "num_beams" in given else "n"
        raise RequestError(f"'{name}' is {width}; at most {MOST_BEAMS} beams are possible", name)
    if answers > width:
        raise RequestError(
            f"'num_return_sequences' is {answers}, more than 'num_beams', {width}",
            "num_return_sequences",
        )
    if given.get("do_sample"):
        raise RequestError(
            "'do_sample' with 'num_beams' above 1 (beam sampling) is not available in vLLM: "
            "leave one of them out",
            "do_sample",
        )
    if given.get("early_stopping") is True:
        raise RequestError(
            "'early_stopping': true is not available in vLLM, whose beam search goes on to the "
            'end: use false or "never"',
            "early_stopping",
        )
    for name, value in given.items():
        acts = MAPPED[name].beams if name in MAPPED else name not in VLLM or name in BEAMS
        asks_for_nothing = value in (0, [], {}) or (name, value) == ("repetition_penalty", 1)
        if not acts and not asks_for_nothing:
            raise RequestError(f"'{name}' has no effect on vLLM's beam search: leave it out", name)
    _greedy(chat)
    chat.update(use_beam_search=True, n=width)


def _greedy(chat: dict[str, Any]) -> None:
    for name in ("top_p", "top_k", "min_p"):
        chat.pop(name, None)
    chat["temperature"] = 0


def _stops(given: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Sets what ends an answer. transformers keeps it in the output, which `stop` does not."""
    strings, ids = given.get("stop_strings"), given.get("eos_token_id")
    for name in ("stop_strings", "eos_token_id"):
        for other in ("stop", "stop_token_ids"):
            if name in given and other in given:
                raise RequestError(f"'{name}' and '{other}' were both given; send one", name)
    if strings is not None:
        chat["stop"] = strings
    if ids is not None:
        chat["stop_token_ids"] = ids
        chat.setdefault("ignore_eos", True)  # transformers takes them instead of the model's own
    if strings is not None or ids is not None:
        chat.setdefault("include_stop_str_in_output", True)


def _biases(given: Mapping[str, Any], chat: dict[str, Any]) -> None:
    """Sets the biases of single tokens. As in transformers, a ban outdoes a bias."""
    wanted = {str(token): (bias, "sequence_bias") for token, bias in given.get("sequence_bias", [])}
    for token in given.get("suppress_tokens", []):
        wanted[str(token)] = (BAN, "suppress_tokens")
    for ids in given.get("bad_words_ids", []):
        if len(ids) == 1:
            wanted[str(ids[0])] = (BAN, "bad_words_ids")
    biases = dict(given.get("logit_bias", {}))
    for token, (bias, name) in wanted.items():
        if biases.get(token, bias) != bias:
            raise RequestError(f"'{name}' and 'logit_bias' both bias token {token}", name)
        biases[token] = bias
    if biases:
        chat["logit_bias"] = biases


def _agreed(given: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of whichever of these names was given; they mean the same."""
    present = [name for name in names if name in given]
    for name in present[1:]:
        if given[name] != given[present[0]]:
            raise RequestError(
                f"'{present[0]}' is {shown(given[present[0]])} and '{name}' is "
                f"{shown(given[name])}, and they mean the same; send one",
                name,
            )
    return given[present[0]] if present else None


def _typed(name: str, value: Any, takes: str) -> Any:
    read = READERS[takes](value)
    if read is None:
        raise RequestError(
            f"'{name}' takes {'an' if takes[0] in 'io' else 'a'} {takes}, got {shown(value)}", name
        )
    return read


# --- the instruct format of Mistral's model cards, as text ---
# <s> [INST] question [/INST] answer</s> [INST] next question [/INST]

MARKERS = re.compile(r"(</?s>|\[/?INST\])")


@dataclass(frozen=True)
class Conversation:
    """What a prompt spells. `ended`: its last answer is finished, and nothing is left to generate;
    otherwise the last message is the user's, or the beginning of an answer."""

    messages: list[dict[str, Any]]
    ended: bool


def read_instruct(prompt: str) -> Conversation | None:
    """The conversation that a prompt in the instruct format spells, with or without `<s>` and with
    any white space; None for any other text. Linear in its length."""
    if not prompt.lstrip().startswith(("<s>", "[INST]")):
        return None
    _, *rest = MARKERS.split(prompt)
    pieces = list(zip(rest[::2], rest[1::2], strict=True))  # each marker with the text behind it
    messages: list[dict[str, Any]] = []
    ended = False
    position = 1 if pieces[0][0] == "<s>" and not pieces[0][1].strip() else 0
    while position < len(pieces):
        question, position = _piece(pieces, position, "[INST]", until=("[/INST]",))
        answer, position = _piece(pieces, position, "[/INST]", until=("</s>", "<s>", "[INST]", ""))
        if question is None or answer is None:
            return None
        messages.append({"role": "user", "content": question})
        if answer:
            messages.append({"role": "assistant", "content": answer})
        for marker in ("</s>", "<s>"):  # the end of this turn and the start of the next
            if position < len(pieces) and pieces[position][0] == marker:
                if pieces[position][1].strip():
                    return None
                ended = True
                position += 1
        if position < len(pieces):
            if not answer:
                return None  # only the last answer may be missing
            ended = False
    return Conversation(messages, ended) if messages else None


def instruct_text(messages: Iterable[Mapping[str, Any]], continued: bool = False) -> str:
    """Messages as the text of the instruct format, up to where what is generated begins: behind
    the last question, or, `continued`, within the last answer.

    A system message stands in front of the user's that follows it; an image is `[IMG]`.
    """
    written, waiting = "", ""
    for message in messages:
        content = _content(message.get("content"))
        if message.get("role") == "assistant":
            written += f"{content} </s>"
        elif message.get("role") == "system":
            waiting += f"{content}\n\n"
        else:
            written += f"<s> [INST] {waiting}{content} [/INST] "
            waiting = ""
    return written.removesuffix(" </s>") if continued else written


def _piece(
    pieces: list[tuple[str, str]], position: int, opening: str, until: tuple[str, ...]
) -> tuple[str | None, int]:
    """The text from the `opening` marker at `position` up to one of `until` ("" is the end of the
    prompt), stripped; None when the marker is another or none of them comes."""
    if position >= len(pieces) or pieces[position][0] != opening:
        return None, position
    end = position + 1
    while end < len(pieces) and pieces[end][0] not in until:
        if pieces[end][0] in ("[INST]", "[/INST]"):
            return None, end
        end += 1  # a marker that was meant as text, such as <s> in a question
    if end == len(pieces) and "" not in until:
        return None, end
    meant = "".join(marker + text for marker, text in pieces[position:end])
    return meant.removeprefix(opening).strip(), end


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) if part.get("type") == "text" else "[IMG]"
        for part in parts
        if isinstance(part, Mapping)
    )

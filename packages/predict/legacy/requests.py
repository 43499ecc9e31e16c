"""Requests in the legacy format → chat requests.

Promises: pure functions; the keys alone tell whether a request is in the OpenAI format. No key of a
legacy request is dropped silently: it reaches vLLM, has no effect according to parameters.yaml, or
is rejected with a `RequestError` that names it. A value from the client wins over a default.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from predict.errors import RequestError, shown
from predict.legacy import decoding
from predict.legacy.instruct import instruct_text, read_instruct
from predict.legacy.parameters import (
    CHAT,
    GENERATE,
    LEGACY,
    MAPPED,
    NO_EFFECT,
    READERS,
    REMOVED,
    UNSUPPORTED,
)
from predict.settings import Settings

# vLLM's fields that ask for something that a legacy answer cannot carry.
OPENAI_ANSWERS_ONLY = ("prompt_logprobs", "return_token_ids", "return_prompt_text")
# … and those that a stream of text cannot carry.
WHOLE_ANSWERS_ONLY = ("tools", "logprobs", "output_scores", "output_logits", "stream_options")

# vLLM's fields that decide something here, and what they take; vLLM checks the others.
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
    """A legacy request, ready for vLLM except for what only vLLM's tokenizer knows."""

    chat: dict[str, Any]  # the body of the chat request
    stream: bool
    answers: int  # how many of vLLM's choices the client asked for
    before: str = ""  # what the output begins with, ahead of the generated text
    keep_space: bool = False  # whether the output keeps the generated text's leading space
    max_length: int | None = None  # tokens, prompt and answer together
    min_length: int | None = None
    most_new_tokens: int | None = None  # the model's limit on what `max_length` leaves
    bad_words_ids: list[list[int]] = field(default_factory=list)  # of several tokens each
    names: dict[str, str] = field(default_factory=dict)  # vLLM's field → the client's name for it


def is_legacy(keys: Collection[str]) -> bool:
    """Whether a chat request with these keys is in a legacy format; refuses one without a prompt or
    messages."""
    if "messages" not in keys and "prompt" not in keys:
        raise _nothing_asked()
    return not LEGACY.isdisjoint(keys)


def refuse_removed(keys: Collection[str]) -> None:
    """Refuses names that vLLM accepts but no longer acts on."""
    for key in keys:
        if key in REMOVED:
            raise RequestError(
                f"'{key}' has no effect on vLLM since its 0.12; use {REMOVED[key]}", key
            )


def missing_defaults(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The defaults that a request in the OpenAI format lacks; a null counts as missing."""
    found: dict[str, Any] = {}
    if values.get("max_tokens") is None and values.get("max_completion_tokens") is None:
        found["max_tokens"] = settings.max_new_tokens
    for name, default in settings.sampling.items():
        if values.get(name) is None:
            found[name] = default
    return {name: value for name, value in found.items() if value is not None}


def translate(request: Mapping[str, Any], settings: Settings) -> LegacyRequest:
    """A legacy request → a chat request."""
    given = _checked(_expanded(request))
    chat = {name: value for name, value in given.items() if name in CHAT}
    stream = given.get("stream", False)
    _refuse_what_cannot_be_answered(given, stream)

    before, keep_space = _messages(given, chat)
    max_length, min_length = _lengths(given, chat, settings)
    answers = _agreed(given, ANSWER_NAMES) or 1
    beams = given.get("num_beams", 1) > 1 or given.get("use_beam_search", False)
    if beams:
        decoding.beam_search(given, chat, answers)
    else:
        chat.pop("length_penalty", None)  # as in transformers, without effect
        decoding.sampling(given, chat, answers, settings)
    if stream and (answers > 1 or beams):
        name = next(name for name in BEAM_NAMES + ANSWER_NAMES if name in given)
        raise RequestError(f"an answer to '{name}' cannot be streamed; leave 'stream' out", name)
    decoding.stops(given, chat)
    decoding.biases(given, chat)
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


def finish(request: LegacyRequest, prompt_tokens: int, bad_words: list[str]) -> dict[str, Any]:
    """The body for vLLM, with what its tokenizer found: the prompt's tokens, the bad words'
    text."""
    chat = dict(request.chat)
    if request.max_length is not None:
        new = request.max_length - prompt_tokens
        if new < 1:
            raise RequestError(
                f"'max_length' is {request.max_length}, and the prompt alone has {prompt_tokens} "
                "tokens; raise it, or use 'max_new_tokens', which does not count the prompt",
                "max_length",
            )
        _check_limit(new, "max_length", request.most_new_tokens)
        chat["max_tokens"] = new
    if request.min_length is not None:
        chat["min_tokens"] = max(0, request.min_length - prompt_tokens)
    if "min_tokens" in chat and "max_tokens" in chat:
        # transformers: "Generation will stop at the defined maximum length"
        chat["min_tokens"] = min(chat["min_tokens"], chat["max_tokens"])
    if bad_words:
        chat["bad_words"] = [*chat.get("bad_words", []), *bad_words]
    return chat


# --- one function for each aspect of a request ---


def _expanded(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the entries of `generation_config` added, over which its own win; no
    nulls."""
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
    """The same, without what has no effect, and with generate's arguments in their types."""
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


def _refuse_what_cannot_be_answered(given: Mapping[str, Any], stream: bool) -> None:
    advice = "send 'messages' with OpenAI's names only, which gets OpenAI's answer"
    for name in OPENAI_ANSWERS_ONLY:
        if name in given and given[name] is not False:
            raise RequestError(f"an answer {{'output': …}} cannot carry '{name}': {advice}", name)
    for name in WHOLE_ANSWERS_ONLY:
        if stream and name in given and given[name] not in (False, []):
            raise RequestError(f"a stream of text cannot carry '{name}': {advice}", name)


def _messages(given: Mapping[str, Any], chat: dict[str, Any]) -> tuple[str, bool]:
    """Sets the messages → what a full text begins with, and whether the generated text keeps a
    leading space."""
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
    """Sets the bounds on new tokens → `max_length` and `min_length`, if these apply."""
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


def _agreed(given: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value given under any of these names, which mean the same; `RequestError` if they
    differ."""
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

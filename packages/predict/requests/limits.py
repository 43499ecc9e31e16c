"""Limits on one request, and what a client may not set.

Promises: pure functions. Types are left to vLLM; None means no limit. Refuses, before vLLM sees any
of it, a request that breaks a limit or has a field reserved for the engine, with a `RequestError`
that names the field, its value and what is allowed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from predict.errors import RequestError, shown
from predict.legacy.parameters import REFUSED_PARTS
from predict.requests import structured_outputs, work
from predict.requests.work import number_of
from predict.settings import RequestLimits

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**63 - 1  # the integers that vLLM can send to its engine
MOST_UNSIGNED = 2**64 - 1

# Top-level names whose entries are counted, and the limit that applies.
COUNTED = {
    "stop": "stop_strings",
    "stop_strings": "stop_strings",
    "stop_sequences": "stop_strings",
    "bad_words": "bad_words",
    "bad_words_ids": "bad_words",
    "allowed_token_ids": "token_ids",
    "stop_token_ids": "stop_tokens",
    "logprob_token_ids": "token_ids",
    "logit_bias": "token_ids",
    "suppress_tokens": "token_ids",
    "sequence_bias": "token_ids",
    "eos_token_id": "stop_tokens",
    "tools": "tools",
    "messages": "messages",
    "input": "messages",
}
# … whose number is limited …
NUMBERS = {
    "n": "answers",
    "num_return_sequences": "answers",
    "best_of": "answers",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "prompt_logprobs": "prompt_logprobs",
    "stream_interval": "stream_interval",
}
# … whose strings are measured …
STRINGS = ("stop", "stop_strings", "stop_sequences", "bad_words")
# … and which hold token ids: in lists, in lists of lists, or as the names of an object.
TOKEN_IDS = (
    "tokens",
    "allowed_token_ids",
    "stop_token_ids",
    "logprob_token_ids",
    "logit_bias",
    "suppress_tokens",
    "eos_token_id",
    "bad_words_ids",
)
# Integers that may be texts, and that a stream of /v1/responses reads when it has begun.
INTEGERS = ("seed", "top_k", "min_tokens", "thinking_token_budget", "max_output_tokens")

IMAGES = ("image_url", "input_image", "image")
DATA = re.compile(rb'"data:|"data"\s*:\s*"')  # a data URL begins, or an image in Anthropic's form


@dataclass
class Seen:
    """What a walk through the messages found."""

    parts: int = 0
    images: int = 0
    image_bytes: int = 0  # of images inside the request
    changed: bool = False  # a `uuid` was removed


def check_size(body: bytes, limits: RequestLimits) -> None:
    """Refuses, before parsing, a body whose text is too long however it is read: all that is
    outside its first images (as many as content parts are allowed)."""
    if limits["text_bytes"] is None or len(body) <= limits["text_bytes"]:
        return
    text, end, left = len(body), 0, limits["parts"]
    while text > limits["text_bytes"] and (found := DATA.search(body, end)):
        if left is not None and (left := left - 1) < 0:
            break
        end = body.find(b'"', found.end())
        if end < 0:
            break
        text -= end - found.start()
    if text > limits["text_bytes"]:
        raise _too_much_text(text, limits["text_bytes"])


def _too_much_text(text: int, limit: int) -> RequestError:
    return RequestError(
        f"the request has {text} bytes beside its images; at most {limit} are allowed", None, 413
    )


def check(body: dict[str, Any], size: int, limits: RequestLimits) -> bool:
    """Refuses a request of `size` bytes that exceeds a limit or sets what a client may not. Removes
    the `uuid` of content parts; returns whether there was any."""
    opened = structured_outputs.opened(body)
    _check_structure(opened, limits)
    for fields in work.parameters(body):
        _check_fields(fields, limits)
    _check_sequences(body, limits)
    work.check(body, size, limits)
    structured_outputs.check(opened, limits)
    seen = Seen()
    for name in ("messages", "input", "system"):
        if isinstance(body.get(name), list):
            read = _read_parts if name == "system" else _read_messages
            read(name, body[name], seen, limits)
    text = size - seen.image_bytes
    _check_answers(body, text, seen.images, limits)
    if limits["text_bytes"] is not None and text > limits["text_bytes"]:
        raise _too_much_text(text, limits["text_bytes"])
    return seen.changed


def _check_answers(body: Mapping[str, Any], text: int, images: int, limits: RequestLimits) -> None:
    """The engine takes the prompt of each answer. Beams have another limit on text
    (`repeated_bytes`)."""
    answers, sequences = work.answers_to_one(body), work.sequences_of_one(body)
    for limit, times, has, what in (
        ("answered_bytes", answers, text, "bytes of text"),
        ("answered_images", sequences, images, "images"),
    ):
        most = limits[limit]
        if times > 1 and most is not None and times * has > most:
            name = work.BEAMS if times > answers else "n"
            raise RequestError(
                f"'{name}' is {times} for a prompt of {has} {what}, {times * has} in all; at most "
                f"{most} are allowed",
                name,
            )


def _most(name: str, has: float, limit: int | None, what: str) -> None:
    if limit is not None and has > limit:
        raise RequestError(f"'{name}' has {has} {what}; at most {limit} are allowed", name)


def _check_structure(body: dict[str, Any], limits: RequestLimits) -> None:
    """Limits the number of values, the depth, and the size of numbers. Tools that are only offered
    are words of the prompt: their numbers may be unsigned."""
    tools = None if structured_outputs.are_called(body) else body.get("tools")
    values = _count_values(body if tools is None else {**body, "tools": None}, limits, MOST_INTEGER)
    if tools is not None:
        values += _count_values({"tools": tools}, limits, MOST_UNSIGNED)
    if limits["values"] is not None and values > limits["values"]:
        raise RequestError(
            f"the request has more than {limits['values']} values, which is the most allowed",
            None,
        )


def _count_values(body: dict[str, Any], limits: RequestLimits, largest: int) -> int:
    """The number of values. Refuses too many, too deep nesting and too large numbers."""
    level: list[Any] = [body]
    values, depth = 0, 0
    while level:
        below: list[Any] = []
        for node in level:
            if isinstance(node, list) and node and set(map(type, node)) == {int}:
                if not LEAST_INTEGER <= min(node) <= max(node) <= largest:
                    raise _too_large(max(node, key=abs), body)
                continue
            values += len(node)
            for value in node.values() if isinstance(node, dict) else node:
                kind = type(value)
                if kind is dict or kind is list:
                    below.append(value)
                elif kind is int and not LEAST_INTEGER <= value <= largest:
                    raise _too_large(value, body)
        if limits["values"] is not None and values > limits["values"]:
            break
        level, depth = below, depth + 1
        if level and limits["depth"] is not None and depth >= limits["depth"]:
            raise RequestError(
                f"the request is nested more than {limits['depth']} levels deep, which is the most "
                "allowed",
                None,
            )
    return values


def _too_large(value: int, body: dict[str, Any]) -> RequestError:
    name = next((name for name, held in body.items() if repr(value) in repr(held)), None)
    return RequestError(f"'{name}' has the number {shown(value)}, which is beyond 64 bits", name)


def _check_fields(fields: Mapping[str, Any], limits: RequestLimits) -> None:
    for name, value in fields.items():
        if name in COUNTED and isinstance(value, (list, dict)):
            _most(name, len(value), limits[COUNTED[name]], "entries")
        if name in NUMBERS:
            number, limit = number_of(value), limits[NUMBERS[name]]
            if limit is not None and number is not None and number > limit:
                raise RequestError(f"'{name}' is {shown(value)}; at most {limit} is allowed", name)
        if name in STRINGS and limits["string_length"] is not None:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and len(text) > limits["string_length"]:
                    raise RequestError(
                        f"'{name}' has a string of {len(text)} characters; at most "
                        f"{limits['string_length']} are allowed",
                        name,
                    )
        if name in TOKEN_IDS and limits["vocabulary"] is not None:
            for token in _token_ids(value):
                if not 0 <= token < limits["vocabulary"]:
                    raise RequestError(
                        f"'{name}' has {token}, which is not a token of this model; its tokens are "
                        f"0 to {limits['vocabulary'] - 1}",
                        name,
                    )
        number = number_of(value) if isinstance(value, str) and name in INTEGERS else value
        if isinstance(number, float) and not LEAST_INTEGER <= number <= MOST_INTEGER:
            raise RequestError(f"'{name}' is {shown(value)}, which does not fit in 64 bits", name)


def _token_ids(value: Any) -> Iterator[int]:
    """The token ids in a value; of a list of ids, only the smallest and the largest."""
    if isinstance(value, list) and set(map(type, value)) == {int}:
        yield from (min(value), max(value))  # there may be half a million
    elif isinstance(value, list):
        for inner in value:
            yield from _token_ids(inner)
    elif isinstance(value, dict):
        for name in value:
            if re.fullmatch(r"-?\d+", name):
                yield int(name[:20])
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _check_sequences(body: Mapping[str, Any], limits: RequestLimits) -> None:
    """Prompts, and answers to all of them."""
    if (prompts := work.prompts_of(body)) == 1:
        return
    _most("prompt", prompts, limits["prompts"], "prompts")
    answers = int(number_of(body.get("n")) or 1)
    if limits["prompts"] is not None and prompts * answers > limits["prompts"]:
        raise RequestError(
            f"'n' is {answers} for each of {prompts} prompts; at most {limits['prompts']} "
            "answers in all are allowed",
            "n",
        )


def _read_messages(name: str, messages: list[Any], seen: Seen, limits: RequestLimits) -> None:
    for position, message in enumerate(messages):
        where = f"{name}[{position}]"
        if not isinstance(message, dict):
            raise RequestError(f"'{where}' takes an object, got {shown(message)}", where)
        if not isinstance(message.get("role", message.get("type")), str):
            raise RequestError(f"'{where}' has no role, such as 'user'", where)
        for field in ("content", "output"):
            if isinstance(message.get(field), list):
                _read_parts(f"{where}.{field}", message[field], seen, limits)


def _read_parts(where: str, parts: list[Any], seen: Seen, limits: RequestLimits) -> None:
    seen.parts += len(parts)
    if limits["parts"] is not None and seen.parts > limits["parts"]:
        raise RequestError(
            f"the request has more than {limits['parts']} content parts, which is the most allowed",
            where,
        )
    for position, part in enumerate(parts):
        if not isinstance(part, dict):
            if isinstance(part, str):
                continue
            raise RequestError(
                f"'{where}[{position}]' takes an object, got {shown(part)}", f"{where}[{position}]"
            )
        if "uuid" in part:
            del part["uuid"]
            seen.changed = True
        kind = part.get("type")
        for refused, why in REFUSED_PARTS.items():
            if refused in part or kind == refused:
                raise RequestError(
                    f"'{where}[{position}]' is of a kind that is not taken, '{refused}': {why}",
                    f"{where}[{position}]",
                )
        if kind in IMAGES or kind is None:
            image = _image(part)
            seen.images += bool(image)
            seen.image_bytes += len(image)
        if isinstance(part.get("content"), list):  # a tool's result
            _read_parts(f"{where}[{position}].content", part["content"], seen, limits)


def _image(part: Mapping[str, Any]) -> str:
    """A part's image data if the request contains it, or its URL."""
    image = part.get("image_url")
    if isinstance(image, dict):
        image = image.get("url")
    source = part.get("source")
    if not image and isinstance(source, dict):
        image = source.get("data") or source.get("url")
    return image if isinstance(image, str) else ""

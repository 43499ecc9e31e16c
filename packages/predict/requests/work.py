"""What costs time in combination: for each token of each answer, or of the prompt.

Promises: pure functions; refuses with a `RequestError` what would keep the engine or the server so
long that others notice, whichever of its names a field has.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from predict.errors import RequestError, shown
from predict.settings import RequestLimits

# What each token of an answer is compared with.
WORDS = ("stop", "stop_strings", "bad_words", "bad_words_ids")
PROMPT = ("prompt", "messages", "tools")  # what a prompt is made of
TOKEN_BYTES = 4  # of text, in English
LOGPROB_WORK = 6  # stop strings that take as long as a log probability, roughly


def parameters(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Where a request's parameters may be: in it, and in transformers' `generation_config`."""
    config = body.get("generation_config")
    return (body, config) if isinstance(config, dict) else (body,)


def check(body: Mapping[str, Any], limits: RequestLimits) -> None:
    every = parameters(body)
    logprobs = max(_count(body, "top_logprobs"), _count(body, "logprobs"))
    logprobs = max(logprobs, _entries(body, "logprob_token_ids"))
    words = sum(_entries(fields, name) for fields in every for name in WORDS)
    prompt = body.get("prompt")
    many = isinstance(prompt, list) and isinstance(next(iter(prompt), None), (str, list))
    asked = ("n", "num_return_sequences")
    each = max(1, *(_count(fields, name) for fields in every for name in asked))
    answers = each * (len(prompt) if isinstance(prompt, list) and many else 1)
    work = answers * (1 + words + LOGPROB_WORK * logprobs)
    if limits["work"] is not None and work > limits["work"]:
        raise RequestError(
            f"'n' is too large beside the rest: {answers} answers × (1 + {words} stop strings and "
            f"bad words + {LOGPROB_WORK} × {logprobs} log probabilities) is {work}; at most "
            f"{limits['work']} is allowed",
            "n",
        )
    repetition = body.get("repetition_detection")
    if isinstance(repetition, dict) and limits["repetition_tokens"] is not None:
        sizes = (number_of(repetition.get(name)) for name in ("max_pattern_size", "min_count"))
        tokens = math.prod(max(1.0, size or 1.0) for size in sizes)
        if tokens > limits["repetition_tokens"]:
            raise RequestError(
                f"'repetition_detection' has max_pattern_size × min_count = {shown(tokens)}; at "
                f"most {limits['repetition_tokens']} is allowed",
                "repetition_detection",
            )
    most = limits["prompt_logprobs_bytes"]
    if most is not None and _asks_of_prompt(body) and (size := _prompt_bytes(body)) * each > most:
        asked_for = "a prompt" if each == 1 else f"{each} answers' prompts"
        raise RequestError(
            f"log probabilities of {asked_for} of {size} bytes are asked for; at most {most} in "
            "all are allowed, for the engine does nothing else meanwhile",
            "prompt_logprobs",
        )


def check_images(body: Mapping[str, Any], limits: RequestLimits) -> None:
    """Of a request with images: 4160 tokens each, of which the JSON of the prompt shows nothing."""
    if limits["prompt_logprobs_bytes"] is not None and _asks_of_prompt(body):
        raise RequestError(
            "log probabilities of a prompt with images are asked for; they are given for text "
            "alone, as an image is thousands of tokens: leave out 'prompt_logprobs' or them",
            "prompt_logprobs",
        )


def _entries(body: Mapping[str, Any], name: str) -> int:
    return len(body[name]) if isinstance(body.get(name), list) else 0


def _count(body: Mapping[str, Any], name: str) -> int:
    return max(0, int(number_of(body.get(name)) or 0))


def _asks_of_prompt(body: Mapping[str, Any]) -> bool:
    asked = [body.get("prompt_logprobs"), body.get("prompt_logprob_token_ids")]
    asked += [body.get("logprobs")] if body.get("echo") else []  # of which 0 is one too
    return any(value is not None for value in asked)


def _prompt_bytes(body: Mapping[str, Any]) -> int:
    return sum(_bytes(body[name]) for name in PROMPT if name in body)


def _bytes(value: Any) -> int:
    """Of a text as JSON; the id of a token counts as a token's text does."""
    if isinstance(value, list) and value and isinstance(value[0], int):
        return TOKEN_BYTES * len(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return sum(map(_bytes, value))
    return len(msgspec.json.encode(value))


def number_of(value: Any) -> float | None:
    """The number vLLM takes a value for; it reads texts too, but neither "nan" nor "inf"."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

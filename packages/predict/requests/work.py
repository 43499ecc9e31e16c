"""Limits on costs that multiply, for each token of each answer, and on the engine's capacity.

Promises: pure functions. Refuses with a `RequestError` what would keep the engine or the server
busy long enough for others to notice, whichever of its names a field has.
"""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from predict.errors import RequestError, shown
from predict.settings import RequestLimits

# vLLM compares each token of an answer with these.
WORDS = ("stop", "stop_strings", "bad_words", "bad_words_ids")
BANNED = ("bad_words", "bad_words_ids")
# These become `logit_bias`. There vLLM's second model runner has room for 1024 tokens of a request
# (v1/worker/gpu/sample/logit_bias.py); one more ends the engine, as do too many bad words or stop
# tokens. Nothing before the engine counts them.
BIASED = ("logit_bias", "sequence_bias", "suppress_tokens", "bad_words_ids")  # single tokens
# Token ids of each answer that cost as much as a stop string. With n 128, 1024 `allowed_token_ids`
# take the engine 180 ms when the answers begin (in vLLM's first model runner); 1024 in `logit_bias`
# take it 21 ms whenever a request comes or goes; reading them all from the API server takes 38 ms.
TOKENS_FOR_ONE = 8
TOKENS = ("allowed_token_ids", "stop_token_ids", "eos_token_id")
LISTED = (*(name for name in BIASED if name not in WORDS), *TOKENS)
# Stop strings that take as long as a log probability, which is also spelled, and written. Beside
# eight clients with n 18 and 20 of them, nobody else was answered.
LOGPROB_WORK = 40
# These make vLLM repeat the prompt in each answer, as text or as tokens.
REPEATING = ("echo", "return_token_ids")
# With beams, vLLM gives the prompt to the engine again for each token of each beam (beams.py).
BEAM_SEARCH, BEAMS, BEAM_REPEATS = "use_beam_search", "num_beams", 4
NUMBER = TypeAdapter[Any](int | float)
OFF = frozenset(["0", "f", "false", "n", "no", "off"])  # vLLM's words for false, case-insensitive


def parameters(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The objects that may hold parameters: the request, and transformers' `generation_config`."""
    config = body.get("generation_config")
    return (body, config) if isinstance(config, dict) else (body,)


def check(body: Mapping[str, Any], size: int, limits: RequestLimits) -> None:
    """Refuses a request of `size` bytes that costs too much."""
    every = parameters(body)
    logprobs = log_probabilities(body)
    words = sum(entries(fields, name) for fields in every for name in WORDS)
    width = _width(every)
    each = sequences_of_one(body)
    answers = each * prompts_of(body)
    biased = sum(_biased(fields, name) for fields in every for name in BIASED)
    ids = sum(entries(fields, name) for fields in every for name in LISTED)
    compared = _repetition(body)
    if limits["repetition_tokens"] is not None and compared > limits["repetition_tokens"]:
        raise RequestError(
            f"'repetition_detection' has max_pattern_size × min_count = {shown(compared)}; at "
            f"most {limits['repetition_tokens']} is allowed",
            "repetition_detection",
        )
    each_costs = 1 + words + LOGPROB_WORK * logprobs + ids // TOKENS_FOR_ONE + compared
    if limits["work"] is not None and answers * each_costs > limits["work"]:
        raise RequestError(
            f"'n' is too large beside the rest: {answers} answers × (1 + {words} stop strings and "
            f"bad words + {LOGPROB_WORK} × {logprobs} log probabilities + {ids} token ids / "
            f"{TOKENS_FOR_ONE} + {compared} tokens of repetition_detection) is "
            f"{answers * each_costs}; at most {limits['work']} is allowed",
            "n",
        )
    beams = BEAMS if width > 1 else BEAM_SEARCH if is_on(_given(every, BEAM_SEARCH)) else None
    repeated = beams or next((name for name in REPEATING if is_on(body.get(name))), None)
    times, most = each * (BEAM_REPEATS if beams else 1), limits["repeated_bytes"]
    if repeated and times > 1 and most is not None and times * size > most:
        raise RequestError(
            f"'{repeated}' has the prompt repeated: {times} × {size} bytes of the request; at most "
            f"{most} are allowed",
            "n" if body.get("n") else repeated,
        )
    if limits["token_ids"] is not None and biased > limits["token_ids"]:
        named = ", ".join(name for name in BIASED if any(_biased(one, name) for one in every))
        raise RequestError(
            f"{biased} tokens have a bias ({named}); at most {limits['token_ids']} are allowed",
            named.partition(",")[0],
        )
    banned = sum(_sizes(fields.get(name)) for fields in every for name in BANNED)
    if limits["bad_words_bytes"] is not None and banned > limits["bad_words_bytes"]:
        name = next(name for name in BANNED if any(fields.get(name) for fields in every))
        raise RequestError(
            f"'{name}' has {banned} bytes or tokens together; at most "
            f"{limits['bad_words_bytes']} are allowed",
            name,
        )


def _repetition(body: Mapping[str, Any]) -> int:
    """The tokens among which vLLM looks for a repetition."""
    repetition = body.get("repetition_detection")
    if not isinstance(repetition, dict):
        return 0
    sizes = (number_of(repetition.get(name)) for name in ("max_pattern_size", "min_count"))
    return int(min(math.prod(max(1.0, size or 1.0) for size in sizes), 1e18))


def prompts_of(body: Mapping[str, Any]) -> int:
    prompts = body.get("prompt")
    if not isinstance(prompts, list) or not isinstance(next(iter(prompts), None), (str, list)):
        return 1
    return len(prompts)


def answers_to_one(body: Mapping[str, Any]) -> int:
    """Answers to each prompt."""
    asked = ("n", "num_return_sequences")
    return max(1, *(_count(fields, name) for fields in parameters(body) for name in asked))


def sequences_of_one(body: Mapping[str, Any]) -> int:
    """Answers to each prompt, or beams: the engine takes the prompt for each."""
    return max(_width(parameters(body)), answers_to_one(body))


def _width(every: tuple[Mapping[str, Any], ...]) -> int:
    """Beams by the name that says so; `use_beam_search` has as many as answers."""
    return int(number_of(_given(every, BEAMS)) or 1)


def log_probabilities(body: Mapping[str, Any]) -> int:
    """The most that a token of an answer has."""
    listed = entries(body, "logprob_token_ids")
    return max(_count(body, "top_logprobs"), _count(body, "logprobs"), listed)


def _given(every: tuple[Mapping[str, Any], ...], name: str) -> Any:
    """A parameter's value; the request's own wins over `generation_config`."""
    return next((fields[name] for fields in every if fields.get(name) is not None), None)


def is_on(value: Any) -> bool:
    return value.lower() not in OFF if isinstance(value, str) else bool(value)


def _biased(fields: Mapping[str, Any], name: str) -> int:
    held = fields.get(name)
    if name == "bad_words_ids" and isinstance(held, list):  # lists of several tokens are bad words
        return sum(isinstance(ids, list) and len(ids) == 1 for ids in held)
    return entries(fields, name)


def entries(body: Mapping[str, Any], name: str) -> int:
    return len(body[name]) if isinstance(body.get(name), (list, dict)) else 0


def _sizes(words: Any) -> int:
    """Bytes of texts plus tokens of lists."""
    if not isinstance(words, list):
        return 0
    sizes = (word.encode(errors="replace") if isinstance(word, str) else word for word in words)
    return sum(len(word) for word in sizes if isinstance(word, (bytes, list)))


def _count(body: Mapping[str, Any], name: str) -> int:
    return max(0, int(number_of(body.get(name)) or 0))


def number_of(value: Any) -> float | None:
    """The number that vLLM reads a value as. It reads texts too, by pydantic ("0__5" is 5), but
    neither "nan" nor "inf"."""
    try:
        number = float(NUMBER.validate_python(value) if isinstance(value, str) else value)
    except (TypeError, ValidationError, OverflowError):
        return None
    return number if math.isfinite(number) else None

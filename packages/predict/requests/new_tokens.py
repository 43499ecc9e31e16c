"""Limits the new tokens of a request by what each of them leaves behind.

vLLM makes and writes all log probabilities of an answer that is not streamed in one step of the
event loop, 13 µs and 1.2 KB each. One request with n 18, 20 log probabilities and 2,000 tokens
blocked all others for 13 s; its answer had 48 MB. A stream of /v1/responses has all of them three
times more at its end. And a beam search keeps a copy of a beam wherever it could have ended, and
all copies until its own end.

Promises: pure functions of what vLLM gets. Answers × tokens × (1 + log probabilities of a token)
stay within the limit `logprob_entries`, beams × tokens within `beam_tokens`. A request that asks
for more is refused; one that sets no number of tokens gets as many as the limits allow.
"""

from collections.abc import Mapping
from typing import Any

from predict.errors import RequestError
from predict.requests.routes import CHAT_COMPLETIONS, COMPLETIONS, RESPONSES
from predict.requests.work import (
    BEAM_SEARCH,
    answers_to_one,
    entries,
    is_on,
    log_probabilities,
    number_of,
    prompts_of,
)
from predict.settings import RequestLimits

# What sets the number of new tokens on each route: the first one given.
TOKENS = {
    CHAT_COMPLETIONS: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
}
REPEATS = 3  # times that a stream of /v1/responses repeats its log probabilities, each at once
FEW_BY_DEFAULT = (COMPLETIONS,)  # 16; elsewhere it is what the context has room for
INCLUDED = "message.output_text.logprobs"  # of `include` on /v1/responses


def bounded(
    path: str,
    body: Mapping[str, Any],
    limits: RequestLimits,
    context: int | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The fields to add to a request so that it stays within the limits. `context`: tokens of the
    model, which vLLM lets no request exceed; `names`: the client's names for vLLM's fields."""
    if path not in TOKENS:
        return {}
    name = next((name for name in TOKENS[path] if body.get(name) is not None), None)
    tokens = max(1, int(number_of(body.get(name)) or 1)) if name else 0
    or_else = "" if path == RESPONSES else ", or set 'stream'"
    allowed = []
    for limit, of_token, what, other in (
        ("logprob_entries", _entries(path, body), "log probabilities, of all answers,", or_else),
        ("beam_tokens", _beams(path, body), "beams", ""),
    ):
        most = limits[limit]
        if most is None or not of_token:
            continue
        allowed.append(max(1, most // of_token))
        if tokens * of_token > most:
            said = (names or {}).get(name or "", name)
            raise RequestError(
                f"'{said}' is {tokens}, with {of_token} {what} for each token {tokens * of_token}; "
                f"at most {most} are allowed: lower '{said}'{other}",
                said,
            )
    if name or not allowed or path in FEW_BY_DEFAULT:
        return {}
    return {TOKENS[path][0]: min(allowed if context is None else [*allowed, context])}


def _entries(path: str, body: Mapping[str, Any]) -> int:
    """Entries that each token has in all answers together; 0 if they come one after another."""
    asked = is_on(body.get("logprobs"))
    if path == COMPLETIONS:
        asked = body.get("logprobs") is not None  # a number there, and 0 is one more than none
    elif path == RESPONSES:
        included = body.get("include")
        asked = isinstance(included, list) and INCLUDED in included
    streamed = is_on(body.get("stream"))
    if not (asked or entries(body, "logprob_token_ids")) or (streamed and path != RESPONSES):
        return 0
    of_one = 1 + log_probabilities(body)
    if path == RESPONSES:
        return of_one * REPEATS if streamed else of_one
    return of_one * answers_to_one(body) * prompts_of(body)


def _beams(path: str, body: Mapping[str, Any]) -> int:
    return answers_to_one(body) if path != RESPONSES and is_on(body.get(BEAM_SEARCH)) else 0

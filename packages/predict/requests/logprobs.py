"""Log probabilities in an answer that is sent whole.

vLLM makes and writes them all in one step of the event loop, 13 µs and 1.2 KB each: one request
with n 18, 20 of them and 2,000 tokens kept everybody waiting for 13 s, and its answer had 48 MB.

Promises: pure functions. Answers × tokens × (1 + log probabilities of a token) are within the limit
`logprob_entries`: a request that asks for more is refused, and one that names no number of tokens
gets as many as the limit allows. Streamed answers are not limited.
"""

from collections.abc import Mapping
from typing import Any

from predict.errors import RequestError
from predict.requests.routes import CHAT_COMPLETIONS, RESPONSES
from predict.requests.structured_outputs import prompts_of
from predict.requests.work import answers_to_one, entries, number_of
from predict.settings import RequestLimits

TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
MOST_TOKENS = 4096  # that a request without a number gets: vLLM refuses what its context lacks
# What sets the number where the route's own default is all that the model has room for.
MISSING = {CHAT_COMPLETIONS: "max_completion_tokens", RESPONSES: "max_output_tokens"}


def check(body: Mapping[str, Any], limits: RequestLimits) -> None:
    of_token, most = _of_a_token(body), limits["logprob_entries"]
    if most is None or not of_token:
        return
    name = next((name for name in TOKENS if body.get(name) is not None), TOKENS[0])
    tokens = max(1, int(number_of(body.get(name)) or 1))
    if tokens * of_token > most:
        raise RequestError(
            f"'{name}' {tokens} × {of_token}, the log probabilities of a token of all answers, is "
            f"{tokens * of_token}; at most {most} is allowed in an answer that is not streamed: "
            f"lower '{name}', or set 'stream'",
            name,
        )


def missing(path: str, body: Mapping[str, Any], limits: RequestLimits) -> dict[str, Any]:
    """The number of tokens that a request without one gets."""
    most = limits["logprob_entries"]
    if most is None or path not in MISSING or any(body.get(name) is not None for name in TOKENS):
        return {}
    of_token = _of_a_token(body)
    return {MISSING[path]: max(1, min(MOST_TOKENS, most // of_token))} if of_token else {}


def _of_a_token(body: Mapping[str, Any]) -> int:
    """Entries that a token has in all answers together; 0 if there are none, or a stream."""
    given = body.get("logprobs"), body.get("top_logprobs"), body.get("logprob_token_ids")
    if body.get("stream") or all(value in (None, False, []) for value in given):
        return 0
    numbers = [int(number_of(value) or 0) for value in given[:2]]
    of_one = 1 + max(0, *numbers, entries(body, "logprob_token_ids"))
    return of_one * answers_to_one(body) * prompts_of(body)

"""Limits log probabilities in an answer that is not streamed.

vLLM makes and writes all of them in one step of the event loop, 13 µs and 1.2 KB each. One request
with n 18, 20 log probabilities and 2,000 tokens blocked all others for 13 s; its answer had 48 MB.

Promises: pure functions of what vLLM gets. Answers × tokens × (1 + log probabilities of a token)
stay within the limit `logprob_entries`. A request that asks for more is refused; one that sets no
number of tokens gets as many as the limit allows.
"""

from collections.abc import Mapping
from typing import Any

from predict.errors import RequestError
from predict.requests.routes import CHAT_COMPLETIONS, COMPLETIONS, RESPONSES
from predict.requests.work import (
    answers_to_one,
    entries,
    is_on,
    log_probabilities,
    number_of,
    prompts_of,
)

# What sets the number of new tokens on each route: the first one given.
TOKENS = {
    CHAT_COMPLETIONS: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
}
FEW_BY_DEFAULT = (COMPLETIONS,)  # 16; elsewhere it is what the context has room for
INCLUDED = "message.output_text.logprobs"  # of `include` on /v1/responses


def bounded(
    path: str,
    body: Mapping[str, Any],
    most: int | None,
    context: int | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The fields to add to a request for at most `most` entries. `context`: tokens of the model,
    which vLLM lets no request exceed; `names`: the client's names for vLLM's fields."""
    of_token = _of_a_token(path, body) if path in TOKENS else 0
    if most is None or not of_token:
        return {}
    name = next((name for name in TOKENS[path] if body.get(name) is not None), None)
    if name is None:
        if path in FEW_BY_DEFAULT:
            return {}
        allowed = max(1, most // of_token)
        return {TOKENS[path][0]: allowed if context is None else min(allowed, context)}
    tokens = max(1, int(number_of(body[name]) or 1))
    if tokens * of_token > most:
        said = (names or {}).get(name, name)
        raise RequestError(
            f"'{said}' is {tokens}, with {of_token} log probabilities for each token of all "
            f"answers {tokens * of_token}; at most {most} are allowed in an answer that is not "
            f"streamed: lower '{said}', or set 'stream'",
            said,
        )
    return {}


def _of_a_token(path: str, body: Mapping[str, Any]) -> int:
    """Entries that each token has in all answers together; 0 for none, and for a stream."""
    asked = is_on(body.get("logprobs"))
    if path == COMPLETIONS:
        asked = body.get("logprobs") is not None  # a number there, and 0 is one more than none
    elif path == RESPONSES:
        included = body.get("include")
        asked = isinstance(included, list) and INCLUDED in included
    if is_on(body.get("stream")) or not (asked or entries(body, "logprob_token_ids")):
        return 0
    of_one = 1 + log_probabilities(body)
    return of_one if path == RESPONSES else of_one * answers_to_one(body) * prompts_of(body)

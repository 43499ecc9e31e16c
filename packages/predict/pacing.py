"""How many tokens one event of a stream carries (vLLM's `stream_interval`), by load.

Each event costs vLLM's API server as much as the text in it, so with many streams one core is full
before a GPU is.

Promises: an event carries one token per SHARE running requests, so with fewer than twice as many
each token has its own event; at most `most`, and no more than come within SMOOTH_SECONDS unless
that is less than ALWAYS. vLLM sends the first token and the end of an answer at once.
"""

from collections.abc import Mapping
from typing import Any

from predict.requests.routes import CHAT_COMPLETIONS, COMPLETIONS

SHARE = 8  # requests
ALWAYS = 4  # tokens
SMOOTH_SECONDS = 0.1  # what comes in steps of this length still reads as flowing text

SCOPE = "predict.stream_interval"  # key in an ASGI scope: what admission chose for the request
FIELD = "stream_interval"  # vLLM's, on these routes
ROUTES = frozenset([CHAT_COMPLETIONS, COMPLETIONS])


def interval(running: int, most: int, token_seconds: float | None) -> int:
    """Tokens per event for one of `running` requests; `token_seconds` pass between two of its
    tokens, if that is known."""
    smooth = most if not token_seconds else max(ALWAYS, int(SMOOTH_SECONDS / token_seconds))
    return max(1, min(running // SHARE, most, smooth))


def missing(body: Mapping[str, Any], chosen: int) -> dict[str, int]:
    """The field that a streaming request lacks; a client's own value wins."""
    streamed = body.get("stream") is True and body.get(FIELD) is None
    return {FIELD: chosen} if streamed and chosen > 1 else {}


class TokenClock:
    """The time between two tokens of one stream, from looks at the engine's counters."""

    def __init__(self) -> None:
        self.token_seconds: float | None = None
        self._tokens = 0.0
        self._at: float | None = None

    def look(self, tokens: float, running: float, now: float) -> None:
        """`tokens` generated so far, `running` requests in the engine, `now` in seconds."""
        made = tokens - self._tokens
        if self._at is not None and made > 0 and running > 0:
            self.token_seconds = (now - self._at) * running / made
        self._tokens, self._at = tokens, now

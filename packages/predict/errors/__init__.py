"""Errors as clients see them: short, in the OpenAI format.

Promises: an error is `{"error": {"message", "type", "param", "code"}}`, with a message of at most
`MAX_LENGTH` characters. This package rejects a request with `RequestError`.
responder.py brings vLLM's errors into that format; reading.py interprets them.
"""

import json
from typing import Any

MAX_LENGTH = 299  # characters of a message; it quotes less than that of a request

INTERNAL_ERROR = "the server failed to answer this request; its log says why"


class RequestError(ValueError):
    """A request that cannot be served; `param` names the key at fault."""

    def __init__(self, message: str, param: str | None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


def error_body(message: str, kind: str, param: str | None, code: int) -> bytes:
    """An error in the OpenAI format, as vLLM writes it."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="backslashreplace")


def shortened(text: str, most: int = MAX_LENGTH) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = json.dumps(value, default=lambda _: "…")
    return text if len(text) <= 60 else f"{text[:57]}…"

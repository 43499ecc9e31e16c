"""Reads vLLM's errors, in all of their forms.

Promises: `parse_error` gives the status, message, type and param that the client is to see. What
Python raised while a request was read is the client's fault, a 400; anything else stays the
server's, a 500 that quotes nothing of any request.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any

from predict.errors import INTERNAL_ERROR, shortened
from predict.errors.faults import MAX_FAULTS, faults, sentence
from predict.vllm_internals import (
    GIVEN_UP,
    MODEL_NAMES,
    NESTED_ERROR,
    OF_PARAMETER,
    REQUEST_READERS,
)

CONSTRAINED = "'structured_outputs' "  # how an error of a constraint begins; names come in later
NOT_SAID = "vLLM rejects this request; sent without 'stream', it says why"

STATUSES = frozenset(status.value for status in HTTPStatus if status >= 400)

# What Python raises for a value of the wrong shape, if vLLM did not expect one.
WRONG_SHAPE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)
# Code that reads a request before an engine has any part of it.
READERS = (
    *REQUEST_READERS,
    "mistral_common",
    "predict.legacy.decoding",
    "predict.legacy.instruct",
    "predict.legacy.parameters",
    "predict.legacy.requests",
    "predict.requests.limits",
    "predict.requests.work",
)


def error_in_event(event: bytes) -> tuple[int, bytes]:
    """Status and body of the error in an event, as they would be without a stream."""
    body = event.partition(b"data: ")[2].partition(b"\n")[0]
    try:
        error = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return 500, b""
    if not isinstance(error, dict):
        return 500, body
    if nested := NESTED_ERROR.search(str(error.get("message"))):
        given_up = GIVEN_UP.startswith(nested["start"])
        status = _status(int(nested["code"]))
        message = NOT_SAID if status < 500 else GIVEN_UP if given_up else ""
        return status, json.dumps({"message": message}).encode()
    return _status(error.get("code")), body


def _status(code: object) -> int:
    return code if isinstance(code, int) and code in STATUSES else 500


def type_of(status: int) -> str:
    """The `type` of an error: one for each status, named like most of vLLM's own."""
    return HTTPStatus(status).phrase.replace(" ", "").removesuffix("Error") + "Error"


def parse_error(
    status: int,
    body: bytes,
    constraint: str | None = None,
    request: Mapping[str, Any] | None = None,
) -> tuple[int, str, str, str | None]:
    """Status, message, type and param of an error in any form. A 501 counts as the client's error:
    it asked for what is not implemented. `request`: what the error is about, as vLLM got it."""
    try:
        got = json.loads(body)
    except (ValueError, RecursionError):
        got = body.decode(errors="replace")
    inner = got.get("error", got) if isinstance(got, dict) else got
    if isinstance(inner, dict):
        text = inner.get("message") or inner.get("detail")
        param = inner.get("param")
    else:
        text, param = inner, None
    phrase = HTTPStatus(status).phrase
    message = text if isinstance(text, str) and text.strip() else phrase
    if constraint is not None and (status, message) == (500, GIVEN_UP):
        fits = f"no output fits '{constraint}', or following it took the engine too long"
        return 400, fits, "BadRequestError", constraint
    if param is None and constraint is not None and message.startswith(CONSTRAINED):
        param = constraint  # vLLM's /v1/messages loses it
    if status == 501:
        status = 400
    if status == 500:
        message = INTERNAL_ERROR
    elif of_fields := _of_fields(message, request):
        message, param = of_fields
    elif named := OF_PARAMETER.search(message):
        message = message[: named.start()]
        param = param or named["name"]
    return (
        status,
        message,
        type_of(status),
        param.removeprefix("body.") if isinstance(param, str) else None,
    )


def _of_fields(text: str, request: Mapping[str, Any] | None) -> tuple[str, str | None] | None:
    """vLLM's list of validation errors as a sentence, and the first place in it."""
    if "validation error" not in text[:40]:
        return None
    if found := faults(text, request):
        return sentence(found), found[0].place or None
    # errors without a place
    told = list(dict.fromkeys(re.findall(r"^  (\w[^{]*)$", text, re.MULTILINE)))
    return ("; ".join(told[:MAX_FAULTS]), None) if told else None


def with_adapters(message: str, adapters: Sequence[str]) -> str:
    """The error that lists the model's names, with the adapters' added, which vLLM leaves out."""
    if adapters and MODEL_NAMES in message:
        return f"{message.rstrip('.')}, {', '.join(adapters)}"
    return message


def is_client_error(error: BaseException) -> bool:
    """Whether one of Python's own errors says that a request could not be read."""
    return isinstance(error, WRONG_SHAPE) and any(
        module.startswith(READERS) for module in _modules(error.__traceback__)
    )


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def cause(error: Exception) -> Exception:
    """The exception that Starlette hides behind its own once a response has begun."""
    behind = error.__cause__
    return behind if isinstance(error, RuntimeError) and isinstance(behind, Exception) else error


def unreadable(error: BaseException) -> str:
    """The message for the client about such an error."""
    what = shortened(str(error), 100)
    return f"this request cannot be read: {type(error).__name__}{f': {what}' if what else ''}"

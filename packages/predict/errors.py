"""Errors as clients see them: OpenAI's shape, short, and in the client's own words.

Promises: an error of whatever is behind, in whatever form, becomes `{"error": {"message", "type",
"param", "code"}}` with its status, and shows at most `MOST` characters; what is no error passes
untouched. What was raised while a request was read is the client's, a 400; anything else stays the
server's, a 500 that shows nothing of any request.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType

from predict.asgi import Message, Send, error_body

MOST = 500  # characters of a message; what it quotes of a request is less than that
MOST_FAULTS = 3  # named in one message, of a request with many
MOST_READ = 65536  # bytes of an error that are read

# What vLLM answers when the engine gave a request up, and so of one whose grammar allows no token.
GIVEN_UP = "Internal server error"

SERVER_S_OWN = "the server failed to answer this request; its log says why"

# What Python raises at a value of the wrong shape, where vLLM did not expect one.
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
# The code, vLLM's and this package's, that reads a request before an engine has any part of it.
READERS = (
    "vllm.entrypoints.anthropic",
    "vllm.entrypoints.openai.chat_completion.protocol",
    "vllm.entrypoints.openai.completion.protocol",
    "vllm.entrypoints.openai.responses",
    "vllm.entrypoints.serve.tokenize",
    "vllm.renderers",
    "vllm.sampling_params",
    "vllm.tokenizers",
    "vllm.tool_parsers",
    "vllm.v1.engine.input_processor",
    "mistral_common",
    "predict.dialects",
    "predict.instruct",
    "predict.limits",
    "predict.takes",
)

# A line of vLLM's "2 validation errors:", cut off or not.
FAULT = re.compile(
    r"'loc': '(?P<loc>[^']*)', 'msg': (?P<msg>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
)


class RequestError(ValueError):
    """A request that cannot be served; `param` names the key at fault."""

    def __init__(self, message: str, param: str | None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


class Errors:
    """A `send` that gives errors their shape. `names`: fields of vLLM's, and what the client, who
    did not send them, called them. `constraint`: the field that holds the output to a schema."""

    def __init__(self, send: Send, path: str) -> None:
        self.send = send
        self.path = path
        self.names: Mapping[str, str] = {}
        self.constraint: str | None = None
        self.started = False
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.start = message
            if message["status"] < 400:
                await self.send(message)
        elif self.start.get("status", 0) < 400 or message["type"] != "http.response.body":
            await self.send(message)
        else:
            if len(self.body) < MOST_READ:
                self.body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.respond(*read(self.start["status"], self.body, self.constraint))

    async def respond(self, status: int, message: str, kind: str, param: str | None) -> None:
        """Sends an error, whole."""
        self.started = True
        message, param = _renamed(message, param, self.names)
        body = error_body(shortened(message), kind, shortened(param) if param else None, status)
        if self.path.startswith("/v1/messages"):  # Anthropic's clients look for this beside it
            body = b'{"type": "error", ' + body[1:]
        kept = [
            (name, value)
            for name, value in self.start.get("headers", [])
            if name.lower() not in (b"content-type", b"content-length")
        ]
        headers = [
            *kept,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def read(
    status: int, body: bytes, constraint: str | None = None
) -> tuple[int, str, str, str | None]:
    """Status, message, type and param of an error in any form. What is not implemented (501) is so
    because a request asks for it."""
    try:
        got = json.loads(body)
    except (ValueError, RecursionError):
        got = body.decode(errors="replace")
    inner = got.get("error", got) if isinstance(got, dict) else got
    if isinstance(inner, dict):
        text = inner.get("message") or inner.get("detail")
        kind, param = inner.get("type"), inner.get("param")
    else:
        text, kind, param = inner, None, None
    phrase = HTTPStatus(status).phrase
    message = text if isinstance(text, str) and text.strip() else phrase
    if constraint is not None and (status, message) == (500, GIVEN_UP):
        fits = f"no output fits '{constraint}', or vLLM could not follow it"
        return 400, fits, "BadRequestError", constraint
    if status == 501:
        status, kind = 400, "BadRequestError"
    return (
        status,
        SERVER_S_OWN if status == 500 else readable(message),
        kind if isinstance(kind, str) and kind else phrase.replace(" ", "") + "Error",
        param.removeprefix("body.") if isinstance(param, str) else None,
    )


def readable(message: str) -> str:
    """vLLM's list of validation errors as a sentence each, without what they quote; any other
    message as it is."""
    if "validation error" not in message[:40]:
        return message
    faults = list(dict.fromkeys(_faults(message)))
    if not faults:
        return message
    shown = "; ".join(faults[:MOST_FAULTS])
    return f"{shown}; and more" if len(faults) > MOST_FAULTS else shown


def _faults(message: str) -> Iterator[str]:
    for found in FAULT.finditer(message):
        text = shortened(str(ast.literal_eval(found["msg"])), MOST // MOST_FAULTS)
        yield f"'{shortened(found['loc'].removeprefix('body.'), 100)}': {text}"
    for text in re.findall(r"^  (\w[^{]*)$", message, re.MULTILINE):  # those without a place
        yield text


def is_the_client_s(error: BaseException) -> bool:
    """Whether an error of Python's own says that a request could not be read."""
    return isinstance(error, WRONG_SHAPE) and any(
        module.startswith(READERS) for module in _modules(error.__traceback__)
    )


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def unreadable(error: BaseException) -> str:
    """What to tell the client of such an error."""
    what = shortened(str(error), 100)
    return f"this request cannot be read: {type(error).__name__}{f': {what}' if what else ''}"


def shortened(text: str, most: int = MOST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _renamed(message: str, param: str | None, names: Mapping[str, str]) -> tuple[str, str | None]:
    for field, name in names.items():
        if field == param:
            param = name
        message = re.sub(rf"\b{re.escape(field)}\b", name, message)
    return message, param

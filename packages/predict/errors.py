"""ErrorResponder as clients see them: OpenAI's shape, short, and in the client's own words.

Promises: an error of whatever is behind, in whatever form, becomes `{"error": {"message", "type",
"param", "code"}}` with its status, and shows at most `MOST` characters; what is no error passes
untouched. So does an error that a stream of events begins with: the stream's start waits until the
engine has answered. An error later in a stream is an event of the same content. What was raised
while a request was read is the client's, a 400; anything else stays the server's, a 500 that shows
nothing of any request.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType

from predict.asgi import Message, Send, error_body, respond

MOST = 500  # characters of a message; what it quotes of a request is less than that
MOST_FAULTS = 3  # named in one message, of a request with many
MOST_READ = 65536  # bytes of an error that are read

# What vLLM answers when the engine gave a request up, and so of one whose grammar allows no token.
GIVEN_UP = "Internal server error"

INTERNAL_ERROR = "the server failed to answer this request; its log says why"
NOT_SAID = "vLLM refuses this request; asked without 'stream', it says why"

STATUSES = frozenset(status.value for status in HTTPStatus if status >= 400)
# How an event begins that is an error: of the completions, and of Anthropic's messages.
FAILED = (b'data: {"error": ', b"event: error\n")
# Events that say nothing yet: those that /v1/responses sends before it asks the engine, and those
# that begin a message, after which the engine's first words, or its error, follow at once.
OPENING = (
    b"event: response.created\n",
    b"event: response.in_progress\n",
    b"event: message_start\n",
)
ROLE = b'"delta":{"role":"assistant","content":""}'
# What is left of an error in a stream of Anthropic's messages, and of one that the engine gave up
# in /v1/responses, where vLLM takes it for an answer and says what pydantic has against that: the
# beginning of its message, and its status.
NESTED_ERROR = re.compile(
    r"\{'error': \{'message': ['\"](?P<start>.*?)\.\.\..*?'code': (?P<code>\d{3})\}\}"
)

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
    "predict.legacy.requests",
    "predict.requests.limits",
    "predict.legacy.parameters",
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


class ErrorResponder:
    """A `send` that gives errors their shape. `names`: fields of vLLM's, and what the client, who
    did not send them, called them. `constraint`: the field that holds the output to a schema."""

    def __init__(self, send: Send, path: str) -> None:
        self.send = send
        self.path = path
        self.names: Mapping[str, str] = {}
        self.constraint: str | None = None
        self.start: Message = {}
        # "waiting" for the start, then "holding" a stream's or "reading" an error; in the end
        # "streaming" events, "passing" any other answer, or "done"
        self.state = "waiting"
        self.held: list[Message] = []
        self.body = b""

    @property
    def begun(self) -> bool:
        """Whether it is too late to answer with an error."""
        return self.state in ("streaming", "passing", "done")

    async def __call__(self, message: Message) -> None:
        if self.state == "streaming" and message.get("body", b"").startswith(FAILED):
            message = {**message, "body": self._event(message["body"])}
        if self.state in ("streaming", "passing"):
            await self.send(message)
        elif message["type"] == "http.response.start":
            await self._start(message)
        elif self.state == "holding":
            await self._hold(message)
        elif self.state == "reading":
            if len(self.body) < MOST_READ:
                self.body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.respond(*read(self.start["status"], self.body, self.constraint))

    async def _start(self, message: Message) -> None:
        self.start = message
        if message["status"] >= 400:
            self.state = "reading"
        elif is_event_stream(message["headers"]):
            self.state, self.held = "holding", [message]
        else:
            self.state = "passing"
            await self.send(message)

    async def _hold(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.startswith(FAILED):
            await self.respond(*read(*failure(body), self.constraint))
            return
        self.held.append(message)
        if not (body.startswith(OPENING) or ROLE in body):
            self.state = "streaming"
            for held in self.held:
                await self.send(held)
            self.held = []

    async def respond(self, status: int, message: str, kind: str, param: str | None) -> None:
        """Sends an error, whole; what comes after it is dropped."""
        self.state, self.held = "done", []
        body = self._body(status, message, kind, param)
        await respond(self.send, status, body, self.start.get("headers", ()))

    def _body(self, status: int, message: str, kind: str, param: str | None) -> bytes:
        for field, name in self.names.items():
            message = re.sub(rf"\b{re.escape(field)}\b", name, message)
        param = self.names.get(param, param) if param else None
        body = error_body(shortened(message), kind, shortened(param) if param else None, status)
        if self.path.startswith("/v1/messages"):  # Anthropic's clients look for this beside it
            body = b'{"type": "error", ' + body[1:]
        return body

    def _event(self, event: bytes) -> bytes:
        """An event that is an error, with what of it may be shown."""
        body = self._body(*read(*failure(event), self.constraint))
        return event[: event.find(b"data: ")] + b"data: " + body + b"\n\n"


def is_event_stream(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in headers)


def failure(event: bytes) -> tuple[int, bytes]:
    """Status and body of the error that an event is, as they would be without a stream."""
    body = event.partition(b"data: ")[2].partition(b"\n")[0]
    try:
        error = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return 500, b""
    if not isinstance(error, dict):
        return 500, body
    if mistaken := NESTED_ERROR.search(str(error.get("message"))):
        given_up = GIVEN_UP.startswith(mistaken["start"])
        status = _status(int(mistaken["code"]))
        message = NOT_SAID if status < 500 else GIVEN_UP if given_up else ""
        return status, json.dumps({"message": message}).encode()
    return _status(error.get("code")), body


def _status(code: object) -> int:
    return code if isinstance(code, int) and code in STATUSES else 500


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
        INTERNAL_ERROR if status == 500 else readable(message),
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


def is_client_error(error: BaseException) -> bool:
    """Whether an error of Python's own says that a request could not be read."""
    return isinstance(error, WRONG_SHAPE) and any(
        module.startswith(READERS) for module in _modules(error.__traceback__)
    )


def _modules(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def cause(error: Exception) -> Exception:
    """What Starlette hides behind its own error where a response has begun."""
    behind = error.__cause__
    return behind if isinstance(error, RuntimeError) and isinstance(behind, Exception) else error


def unreadable(error: BaseException) -> str:
    """What to tell the client of such an error."""
    what = shortened(str(error), 100)
    return f"this request cannot be read: {type(error).__name__}{f': {what}' if what else ''}"


def shortened(text: str, most: int = MOST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""The `send` that brings every error into the OpenAI format.

Promises: an error of the wrapped app, in whatever form, keeps its status and becomes `{"error":
{…}}`; any other answer passes unchanged. The start of a stream waits until the engine has answered,
so that an error at the beginning of a stream is a JSON error with its status; it does not wait for
text, because a tool call has none. An error later in a stream becomes an event with the same
content.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from predict.asgi import Message, Send, respond
from predict.errors import error_body, shortened
from predict.errors.reading import error_in_event, parse_error, with_adapters
from predict.vllm_internals import ANSWERED_EVENT, ERROR_EVENTS, OPENING_EVENTS, ROLE_DELTA

Explain = Callable[[str, str | None, Mapping[str, Any]], tuple[str, str | None]]

MAX_READ = 65536  # bytes of an error that are read
# Turns of the event loop that a role waits for the error that vLLM may send right after it. Turns,
# not seconds: a busy server has as many of them.
TURNS = 4


class ErrorResponder:
    """`names`: vLLM's field → the client's name for it, if the client sent it under another name.
    `adapters`: names that are served beside those vLLM lists when it does not know a name.
    `constraint`: the field that constrains the output. `request`: what an error may be about, until
    the answer begins. `explain`: message, param and request → a better message and param."""

    def __init__(
        self, send: Send, path: str, adapters: Sequence[str] = (), explain: Explain | None = None
    ) -> None:
        self.send = send
        self.adapters = adapters
        self.path = path
        self.names: Mapping[str, str] = {}
        self.constraint: str | None = None
        self.explain = explain
        self.request: Mapping[str, Any] | None = None
        self.start: Message = {}
        # "waiting" for the start, then "holding" a stream's, which ends by "releasing" it, or
        # "reading" an error; finally "streaming" events, "passing" any other answer, or "done"
        self.state = "waiting"
        self.held: list[Message] = []
        self.release: asyncio.Task[None] | None = None
        self.body = b""

    @property
    def begun(self) -> bool:
        """Whether it is too late to answer with an error."""
        return self.state in ("releasing", "streaming", "passing", "done")

    async def __call__(self, message: Message) -> None:
        if self.state == "releasing" and self.release is not None:
            await self.release
        if self.state == "streaming" and message.get("body", b"").startswith(ERROR_EVENTS):
            message = {**message, "body": self._event(message["body"])}
        if self.state in ("streaming", "passing"):
            await self.send(message)
        elif message["type"] == "http.response.start":
            await self._start(message)
        elif self.state == "holding":
            await self._hold(message)
        elif self.state == "reading":
            if len(self.body) < MAX_READ:
                self.body += message.get("body", b"")
            if not message.get("more_body", False):
                await self.respond(*self._parsed(self.start["status"], self.body))

    async def _start(self, message: Message) -> None:
        self.start = message
        if message["status"] >= 400:
            self.state = "reading"
        elif is_event_stream(message["headers"]):
            self.state, self.held = "holding", [message]
        else:
            self.state, self.request = "passing", None
            await self.send(message)

    async def _hold(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.startswith(ERROR_EVENTS):
            await self.respond(*self._parsed(*error_in_event(body)))
            return
        self.held.append(message)
        answered = ROLE_DELTA in body or body.startswith(ANSWERED_EVENT)
        if not (answered or body.startswith(OPENING_EVENTS)):
            await self._release()
        elif answered and self.release is None:
            self.release = asyncio.create_task(self._release_soon())

    async def _release_soon(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.state == "holding":
            await self._release()

    async def _release(self) -> None:
        held, self.held, self.state = self.held, [], "releasing"
        for message in held:
            await self.send(message)
        self.state, self.request = "streaming", None

    async def respond(self, status: int, message: str, kind: str, param: str | None) -> None:
        """Sends an error as the whole answer; what comes after it is dropped."""
        self.state, self.held = "done", []
        body = self._body(status, message, kind, param)
        await respond(self.send, status, body, self.start.get("headers", ()))

    def _parsed(self, status: int, body: bytes) -> tuple[int, str, str, str | None]:
        return parse_error(status, body, self.constraint, self.request)

    def _body(self, status: int, message: str, kind: str, param: str | None) -> bytes:
        if self.explain and self.request is not None and status in (400, 404):
            message, param = self.explain(message, param, self.request)
        message = with_adapters(message, self.adapters)
        for field, name in self.names.items():
            message, found = re.subn(rf"\b{re.escape(field)}\b", name, message)
            param = name if found and param is None else param
        param = self.names.get(param, param) if param else None
        body = error_body(shortened(message), kind, shortened(param) if param else None, status)
        if self.path.startswith("/v1/messages"):  # Anthropic's clients look for this
            body = b'{"type": "error", ' + body[1:]
        return body

    def _event(self, event: bytes) -> bytes:
        """An error event, reduced to what may be shown."""
        body = self._body(*self._parsed(*error_in_event(event)))
        return event[: event.find(b"data: ")] + b"data: " + body + b"\n\n"


def is_event_stream(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(n == b"content-type" and v.startswith(b"text/event-stream") for n, v in headers)

"""The outer middleware: decides which requests get in, and when.

Promises: only the routes in ROUTES reach vLLM; any other path, however it is spelt, gets a 404, and
any other method a 405. A request over the limit, or during shutdown, gets a 503 with Retry-After
before its body is read; admitted requests are never interrupted. Liveness and health are answered
here (liveness.py). All errors have OpenAI's format, and vLLM's own 503s get a Retry-After. Answers
without the engine have a rate limit (rate_limit.py); a delayed one keeps no slot, and no share of
the image memory. None of this relies on Truss's nginx: an image may be built without it.
"""

import asyncio
import difflib
import re
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from predict import pacing, running
from predict.asgi import App, Header, Message, Receive, Scope, Send, respond, to_path
from predict.errors import error_body
from predict.liveness import EngineWatchdog
from predict.rate_limit import AnswerRate
from predict.requests.turns import SHOWING
from predict.settings import Settings

LIVENESS = "/liveness"  # fails when only a restart helps
HEALTH = "/health"  # readiness: fails when a request sent now would not be served
METRICS = "/metrics"

# The rewrites of Truss's nginx (proxy.conf): Baseten's own routes, as config.yaml maps them.
ALIASES = {
    "/": LIVENESS,
    "/v1/models/model": HEALTH,
    "/v1/models/model:predict": "/v1/chat/completions",
}
HEADER_BYTES = 32768  # request line and headers; nginx's large_client_header_buffers

GENERATING = frozenset(
    ["/predict", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]
)
PLACED = GENERATING | SHOWING  # they read a prompt, and so take a slot, also without the engine
ROUTES = {
    **dict.fromkeys(PLACED, ("POST",)),
    **dict.fromkeys(("/v1/models", METRICS), ("GET",)),
    **dict.fromkeys((LIVENESS, HEALTH), ("GET", "HEAD")),
}
MODEL = re.compile(r"/v1/models/(?!.*\.\.)[^?#]{1,300}")
STORED_RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]+(/cancel)?")

# OpenAI's client waits this long, and by default retries twice. By then a full queue has mostly
# drained.
RETRY_SECONDS = 10
RETRY_AFTER = (b"retry-after", str(RETRY_SECONDS).encode())


class AdmissionMiddleware:
    def __init__(
        self, app: App, settings: Settings, make_room: Callable[[], None] = lambda: None
    ) -> None:
        """`make_room` is called when all slots are taken."""
        self.app = app
        self.make_room = make_room
        self.settings = settings
        self.stopping = False
        self.running = 0  # requests that hold a slot: not yet answered in full
        self.rate = AnswerRate()
        self.watch: EngineWatchdog | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, self._lifespan(scope, receive), send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # becomes a 403: no route is a WebSocket
            return
        if meant := ALIASES.get(scope["path"]):
            scope = to_path(scope, meant)
        answer = AnswerSender(send, self.rate, scope["app"].state.engine_client)
        try:
            await self._respond(scope, receive, answer)
        finally:
            await answer.end()

    async def _respond(self, scope: Scope, receive: Receive, send: "AnswerSender") -> None:
        if header_bytes(scope) > HEADER_BYTES:
            message = f"the request's line and headers may have {HEADER_BYTES} bytes"
            await refuse(send, 431, "RequestHeaderFieldsTooLargeError", message)
            return
        path, method = scope["path"], scope["method"]
        methods = methods_of(path)
        if methods is None:
            message = f"there is no route {path[:100]!r} here{did_you_mean(path)}"
            await refuse(send, 404, "NotFoundError", message)
        elif path in (LIVENESS, HEALTH) and method in methods:
            send.limited = False
            await self._probe(path, send)
        elif method not in methods and (method != "OPTIONS" or path in (LIVENESS, HEALTH)):
            allowed = ", ".join(methods)
            message = f"{path[:100]} takes {allowed}, not {method[:20]}"
            allow = (b"allow", allowed.encode())
            await refuse(send, 405, "MethodNotAllowedError", message, allow)
        elif path == METRICS:
            send.limited = method not in methods  # its own turns limit it (requests/middleware.py)
            await self.app(scope, receive, send)
        elif self._closed():
            await put_off(send, "the server is stopping; try again, on another replica")
        elif path not in PLACED or method != "POST":
            await self.app(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: "AnswerSender") -> None:
        limit = scope["app"].state.args.max_num_queued_reqs
        behind_nginx = self.settings.most_requests
        if limit is None or (behind_nginx is not None and behind_nginx < limit):
            limit = behind_nginx
        if limit is not None:
            # vLLM counts sequences, and only those that have reached its engine
            unfinished = send.engine.get_num_unfinished_requests()
            if max(self.running, unfinished) >= limit:
                self.make_room()
                await put_off(send, f"{limit} requests are being served or queued; try again later")
                return

        send.ended = give_back = self._take_slot()
        send.by_engine = scope["path"] in GENERATING
        seconds = self.watch.clock.token_seconds if self.watch else None
        most = self.settings.stream_interval
        scope[pacing.SCOPE] = pacing.interval(self.running, most, seconds)
        try:
            await self.app(scope, receive, send)
        finally:
            give_back()

    def _take_slot(self) -> Callable[[], None]:
        """Takes a slot; returns a function that gives it back, once."""
        taken = True
        self.running += 1

        def give_back() -> None:
            nonlocal taken
            if taken:
                self.running -= 1
            taken = False

        return give_back

    async def _probe(self, path: str, send: Send) -> None:
        fault = self.watch.fault() if self.watch else None
        if fault is None and path == HEALTH and self.stopping:
            fault = "the server is stopping"
        if fault is None:
            await respond(send, 200, b"")  # like vLLM's own /health
        else:
            await put_off(send, fault)

    def _closed(self) -> bool:
        return self.stopping or (self.watch is not None and self.watch.engine.errored)

    def _lifespan(self, scope: Scope, receive: Receive) -> Receive:
        async def heard() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._start(scope["app"].state)
            elif self.watch is not None:
                self.watch.end()
            return message

        return heard

    def _start(self, state: Any) -> None:
        """Watches the engine and wraps the signal handlers, once vLLM has set them up."""
        running.publish(state)
        self.watch = EngineWatchdog(
            state.engine_client,
            self.settings.stall_seconds,
            state.args.shutdown_timeout,
            lambda: self.stopping,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)

            def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
                self.stopping = True
                if callable(before):
                    before(number, frame)

            signal.signal(number, stop)
            signal.siginterrupt(number, False)


class AnswerSender:
    """The `send` of one answer. Adds Retry-After to a 503, and never delays one, because its client
    waits anyway. Calls `ended` as soon as the last message is sent, or would be if it is delayed:
    the client may send its next request at once, while the rest of vLLM's work waits for a turn of
    a busy event loop."""

    def __init__(self, send: Send, rate: AnswerRate, engine: Any) -> None:
        self.send, self.rate, self.engine = send, rate, engine
        self.limited = True  # by the rate, unless the answer is …
        self.by_engine = False
        self.ended: Callable[[], None] = lambda: None
        self.delay = 0.0  # s
        self.delayed: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._started(message)
        if self.delay:
            self.delayed.append(message)
        else:
            await self.send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended()

    def _started(self, start: Message) -> Message:
        status = start["status"]
        if status == 503:
            return {**start, "headers": [*start["headers"], RETRY_AFTER]}
        if self.limited and not (self.by_engine and status < 400):
            self.delay = self.rate.delay(self.engine.get_num_unfinished_requests() > 0)
        return start

    async def end(self) -> None:
        """Sends a delayed answer; call it when all that the request needed is free again."""
        if self.delay:
            await asyncio.sleep(self.delay)
            for message in self.delayed:
                await self.send(message)


def header_bytes(scope: Scope) -> int:
    """The bytes of a request's target and headers, without separators."""
    target = len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b""))
    return target + sum(len(name) + len(value) for name, value in scope.get("headers", ()))


def methods_of(path: str) -> tuple[str, ...] | None:
    """The methods that a path takes; None if there is no such route."""
    if (methods := ROUTES.get(path)) is not None:
        return methods
    if stored := STORED_RESPONSE.fullmatch(path):
        return ("POST",) if stored[1] else ("GET",)
    return ("GET",) if MODEL.fullmatch(path) else None


def did_you_mean(path: str) -> str:
    """The end of the error about an unknown path: the path that may have been meant."""
    bare = re.sub(r"^(?:/v1)+(?=/v1/)", "", path.rstrip("/"))
    if (found := f"/v1{bare}") in ROUTES:
        return f"; did you mean {found}? (an OpenAI client's base_url ends in /v1)"
    if (found := bare.removeprefix("/v1")) in ROUTES:
        return f"; did you mean {found}?"
    near = difflib.get_close_matches(bare[:40], sorted(ROUTES), n=1, cutoff=0.85)
    return f"; did you mean {near[0]}?" if near else ""


async def put_off(send: Send, message: str) -> None:
    await refuse(send, 503, "ServiceUnavailableError", message)


async def refuse(send: Send, status: int, kind: str, message: str, *more: Header) -> None:
    await respond(send, status, error_body(message, kind, None, status), more)

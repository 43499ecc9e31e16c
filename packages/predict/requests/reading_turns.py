"""Large requests take turns in the event loop, and leave it to others in between.

To read one takes the loop up to 4 ms here, for its JSON and our checks, and vLLM's part, its models
and its conversation, over 20 ms. Where eight clients send such requests without a pause, the loop
has no time left for short ones.

Promises: large requests are read in order of arrival, each after a rest of `REST` times the CPU
time that the loop has spent on those before it, in steps long enough for others to notice. What
vLLM does in tasks of its own, its conversation, is not counted: it falls into that rest. Of those
that only show what a prompt becomes it has one at a time, and none for as long again. One alone
waits for nothing, nor does a small one, nor an answer.
"""

import asyncio
import contextlib
import time
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from predict.asgi import App, Message, Receive, Scope, Send

LARGE = 4096  # bytes; who sends less costs as much by their number alone
REST = 6.0
NOTICED_SECONDS = 0.001  # a token of an answer takes a tenth of it

SHOWING = frozenset(["/tokenize", "/detokenize", "/v1/messages/count_tokens"])  # routes

Result = TypeVar("Result")


class Turns:
    """One after the other, in order of arrival, each after the rest of those before it."""

    def __init__(self) -> None:
        self.order = asyncio.Lock()
        self.free_at = 0.0

    async def rest(self) -> None:
        while (left := self.free_at - time.monotonic()) > 0:
            await asyncio.sleep(left)


class ReadingTurns(Turns):
    async def take(self, size: int, read: Callable[[], Result]) -> Result:
        """What `read` returns, which reads a request of `size` bytes."""
        if size <= LARGE:
            return read()
        async with self.order:
            await self.rest()
            began = time.thread_time()
            try:
                return read()
            finally:
                self.took(time.thread_time() - began)

    async def answer(self, size: int, answered: Awaitable[Result]) -> Result:
        """What `answered` returns, which answers a request of `size` bytes."""
        return await (answered if size <= LARGE else self._timed(answered))

    def took(self, seconds: float) -> None:
        self.free_at = max(self.free_at, time.monotonic()) + REST * seconds

    @types.coroutine
    def _timed(self, awaited: Awaitable[Result]) -> Generator[Any, Any, Result]:
        steps, error = awaited.__await__(), None
        while True:
            began = time.thread_time()
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            finally:
                if (seconds := time.thread_time() - began) > NOTICED_SECONDS:
                    self.took(seconds)
            try:
                error = None
                yield future
            except BaseException as raised:
                error = raised


class ShowingTurns(Turns):
    async def answer(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Has `app` answer a large request of SHOWING."""
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(self.order)
            await self.rest()
            turn.callback(self.took, time.monotonic())

            async def answering(message: Message) -> None:
                await turn.aclose()  # to send it takes as long as its client likes
                await send(message)

            await app(scope, receive, answering)

    def took(self, began: float) -> None:
        now = time.monotonic()
        self.free_at = now + now - began

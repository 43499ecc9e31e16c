"""Large requests take turns in the event loop, and leave it to others in between.

To read one takes the loop up to 4 ms here, for its JSON and our checks, and vLLM's part, its models
and its conversation, over 20 ms. Where eight clients send such requests without a pause, the loop
has no time left for short ones.

Promises: large requests are read one after the other, each after a rest of `REST` times the CPU
time that the loop has spent on those before it, in steps long enough for others to notice. What
vLLM does in tasks of its own, its conversation, is not counted: it falls into that rest. Of large
ones that only show what a prompt becomes vLLM has one at a time, and none for as long again. No
rest is longer than MOST_REST. Smaller ones go before larger ones that came up to AHEAD_SECONDS
before them. One alone waits for nothing, nor does a small one, nor an answer. Who has left is not
read, and who has waited WAIT_SECONDS gets a 503.
"""

import asyncio
import contextlib
import heapq
import itertools
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar

from predict.asgi import ClientLeftError, Message, Receive, Send
from predict.errors import RequestError

LARGE = 4096  # bytes; who sends less costs as much by their number alone
REST = 6.0
MOST_REST = 1.0  # s; a collection of garbage may fall into a step
NOTICED_SECONDS = 0.001  # a token of an answer takes a tenth of it
WAIT_SECONDS = 30.0
AHEAD_SECONDS = 5.0
AHEAD_BYTES = 100_000  # by which one is larger than another that goes before it, for each second

SHOWING = frozenset(["/tokenize", "/detokenize", "/v1/messages/count_tokens"])  # routes

Result = TypeVar("Result")
Waiting = tuple[float, int, "asyncio.Future[None]"]  # when it would have come if it were small


class Turns:
    def __init__(self) -> None:
        self.taken = False
        self.free_at = 0.0
        self.waiting: list[Waiting] = []
        self.numbers = itertools.count()
        self.timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def turn(self, size: int, receive: Receive) -> AsyncIterator[None]:
        """Of a request of `size` bytes, which have been received."""
        waits = self.taken or bool(self.waiting) or time.monotonic() < self.free_at
        if waits:
            await self._wait(size)
        self.taken = True
        try:
            if waits and await has_left(receive):
                raise ClientLeftError
            yield
        finally:
            self._give_up()

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes for so long, beside what is to pass already."""
        now = time.monotonic()
        self.free_at = min(max(self.free_at, now) + seconds, now + MOST_REST)

    async def _wait(self, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        later = min(size / AHEAD_BYTES, AHEAD_SECONDS)
        heapq.heappush(self.waiting, (time.monotonic() + later, next(self.numbers), turn))
        self._serve()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came as it left
                self._give_up()
            if isinstance(error, TimeoutError):
                said = "other large requests are being read; try again later"
                raise RequestError(said, None, 503) from None
            raise

    def _give_up(self) -> None:
        self.taken = False
        self._serve()

    def _serve(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.waiting and (left := self.free_at - time.monotonic()) > 0:
            self.timer = asyncio.get_running_loop().call_later(left, self._serve)
            return
        while self.waiting and not self.taken:
            _, _, turn = heapq.heappop(self.waiting)
            if not turn.done():
                self.taken = True
                turn.set_result(None)


async def has_left(receive: Receive) -> bool:
    """Whether the client of a request that has been received is gone."""
    asked = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    if asked.done():
        return bool(asked.result()["type"] == "http.disconnect")
    asked.cancel()
    return False


class ReadingTurns(Turns):
    async def take(self, size: int, receive: Receive, read: Callable[[], Result]) -> Result:
        """What `read` returns, which reads a request of `size` bytes."""
        if size <= LARGE:
            return read()
        async with self.turn(size, receive):
            began = time.thread_time()
            try:
                return read()
            finally:
                self.pause(REST * (time.thread_time() - began))

    async def answer(self, size: int, answered: Awaitable[Result]) -> Result:
        """What `answered` returns, which answers a request of `size` bytes."""
        return await (answered if size <= LARGE else self._timed(answered))

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
                error = None  # or it would keep this frame, and all of the request
                if (seconds := time.thread_time() - began) > NOTICED_SECONDS:
                    self.pause(REST * seconds)
            try:
                yield future
            except BaseException as raised:
                error = raised


class ShowingTurns(Turns):
    async def answer(
        self, size: int, receive: Receive, send: Send, show: Callable[[Send], Awaitable[None]]
    ) -> None:
        """Has `show` answer a request of SHOWING, which has been received."""
        if size <= LARGE:
            await show(send)
            return
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(self.turn(size, receive))
            began = time.monotonic()
            turn.callback(lambda: self.pause(time.monotonic() - began))

            async def answering(message: Message) -> None:
                await turn.aclose()  # to send it takes as long as its client likes
                await send(message)

            await show(answering)

"""Large requests take turns in the event loop, and leave time for others in between.

Reading one takes up to 4 ms of the loop here (its JSON and our checks) and over 20 ms in vLLM (its
models and its conversation). If eight clients send such requests without a pause, the loop has no
time left for short ones.

Promises: large requests are read one after another. While small requests are answered, and for
LATELY_SECONDS after, each is read only after a rest of `REST` times the CPU time that the loop has
spent on those before it, MOST_REST at most. Only steps long enough for others to notice count; what
vLLM does in its own tasks (the conversation) falls into that rest. Large requests that only show
what a prompt becomes (SHOWING) run one at a time in vLLM, each followed by a rest as long as it
took. Smaller requests go before larger ones that came up to AHEAD_SECONDS earlier. A large request
that comes alone does not wait, nor does a small one, nor an answer. A request whose client has
disconnected is not read; one that has waited WAIT_SECONDS gets a 503.
Size is not cost: where small requests have steps of COSTLY_SECONDS, more than COSTLY_SHARE of the
time together, all of their size and more count as large, for LATELY_SECONDS.
"""

import asyncio
import contextlib
import heapq
import itertools
import math
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, TypeVar

from predict.asgi import ClientLeftError, Message, Receive, Send
from predict.errors import RequestError

LARGE = 4096  # bytes; smaller requests cost as much by their number alone
REST = 6.0
LATELY_SECONDS = 10.0  # small requests answered this recently are followed by more
MOST_REST = 1.0  # s; a step may include a garbage collection
NOTICED_SECONDS = 0.001  # ten times what a token of an answer takes
COSTLY_SECONDS = 0.004  # CPU of a small request's step; an ordinary one's are under 1 ms
SMALLEST = 512  # bytes; less always counts as small: nobody makes all others wait by a few bytes
COSTLY_SHARE, COSTLY_BURST = 0.1, 0.25  # of the time, and seconds of it at once
FIRST_STEPS = 8  # of a small request: it is read and refused, or passed to the engine, in these
WAIT_SECONDS = 30.0
AHEAD_SECONDS = 5.0
AHEAD_BYTES = 100_000  # for each of so many bytes, a request queues as if it had come 1 s later

SHOWING = frozenset(["/tokenize", "/detokenize", "/v1/messages/count_tokens"])  # routes

Result = TypeVar("Result")
Waiting = tuple[float, int, "asyncio.Future[None]"]  # when it came, later by its size


class LargeRequestTurns:
    def __init__(self) -> None:
        self.taken = False
        self.free_at = 0.0
        self.waiting: list[Waiting] = []
        self.numbers = itertools.count()
        self.timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def turn(self, size: int, receive: Receive) -> AsyncIterator[None]:
        """The turn of a fully received request of `size` bytes."""
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
        """No turn begins for `seconds`, on top of the rest that is still due."""
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
            if turn.done() and not turn.cancelled():  # its turn came just as it gave up
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
    """Whether the client of a fully received request has disconnected."""
    asked = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    if asked.done():
        return bool(asked.result()["type"] == "http.disconnect")
    asked.cancel()
    return False


class ReadingTurns(LargeRequestTurns):
    def __init__(self) -> None:
        super().__init__()
        self.small = 0  # that are being answered
        self.small_at = -math.inf  # when one was
        self.large = LARGE + 1  # bytes from which a request is large, …
        self.large_at = -math.inf  # … if fewer than ever: since then
        self.costly = 0.0  # seconds of small requests' costly steps beyond their share, …
        self.costly_at = 0.0  # … then

    def is_large(self, size: int) -> bool:
        if self.large <= LARGE and time.monotonic() - self.large_at > LATELY_SECONDS:
            self.large = LARGE + 1
        return size >= self.large

    async def take(self, size: int, receive: Receive, read: Callable[[], Result]) -> Result:
        """What `read` returns, which reads a request of `size` bytes."""
        if not self.is_large(size):
            return self._read(size, read)
        async with self.turn(size, receive):
            return self._read(size, read)

    def _read(self, size: int, read: Callable[[], Result]) -> Result:
        began = time.thread_time()
        try:
            return read()
        finally:
            self._spent(size, time.thread_time() - began)

    async def answer(self, size: int, answered: Awaitable[Result]) -> Result:
        """What `answered` returns, which answers a request of `size` bytes."""
        steps = math.inf if self.is_large(size) else FIRST_STEPS
        if size > LARGE:
            return await self._timed(size, answered, steps)
        self.small += 1
        try:
            return await self._timed(size, answered, steps)
        finally:
            self.small -= 1
            self.small_at = time.monotonic()

    def _spent(self, size: int, seconds: float) -> None:
        """The loop has spent so much CPU time on a step of a request."""
        if size <= LARGE:
            if seconds <= COSTLY_SECONDS or size < SMALLEST:
                return
            now = time.monotonic()
            left = self.costly - COSTLY_SHARE * (now - self.costly_at)
            self.costly, self.costly_at = max(0.0, left) + seconds, now
            if self.costly > COSTLY_BURST:
                if not self.is_large(size):
                    self.large = size
                self.large_at = now
        if self.is_large(size) and (
            self.small or time.monotonic() - self.small_at < LATELY_SECONDS
        ):
            self.pause(REST * seconds)

    @types.coroutine
    def _timed(
        self, size: int, awaited: Awaitable[Result], count: float
    ) -> Generator[Any, Any, Result]:
        """Awaits, and counts the first steps."""
        steps, error = awaited.__await__(), None
        while True:
            if count <= 0 and error is None:
                return (yield from steps)
            count -= 1
            began = time.thread_time()
            try:
                future = next(steps) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            finally:
                error = None  # or it would keep this frame, and all of the request
                if (seconds := time.thread_time() - began) > NOTICED_SECONDS:
                    self._spent(size, seconds)
            try:
                yield future
            except BaseException as raised:
                error = raised


class ShowingTurns(LargeRequestTurns):
    async def answer(
        self, size: int, receive: Receive, send: Send, show: Callable[[Send], Awaitable[None]]
    ) -> None:
        """Has `show` answer, in its turn, a fully received request to a route of SHOWING."""
        if size <= LARGE:
            await show(send)
            return
        async with contextlib.AsyncExitStack() as turn:
            await turn.enter_async_context(self.turn(size, receive))
            began = time.monotonic()
            turn.callback(lambda: self.pause(time.monotonic() - began))

            async def answering(message: Message) -> None:
                await turn.aclose()  # sending takes as long as the client likes
                await send(message)

            await show(answering)

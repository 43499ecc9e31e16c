"""Limits the memory that the bodies and images of all requests take in this process.

Promises: a body of SMALL_BODY bytes or more is read only once there is room for it, and downloaded
image data is kept only while there is. The total stays within the limit `image_memory_bytes`; three
quarters of it are for requests whose images are decoded (images/memory.py). While a request waits
for room to come in, or for a slot, bodies that arrive more slowly than PACE lose their room; the
smallest waiting body goes first.
Refuses with `BusyError` (a 503) a request that has waited WAIT_SECONDS, or waits behind too many
others while slots are wanted, and with `TimeoutError` (a 408) a body that arrives too slowly.
"""

import asyncio
import gc
import math
from bisect import insort
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from predict.asgi import Message, Receive

# A body exists as the bytes that arrived, as the strings in it (twice, while vLLM parses it) and as
# the bytes of its images. Until the answer has ended, FastAPI keeps the first two: the request has
# its bytes and the JSON read from them.
BODY_COPIES, KEPT_COPIES = 3, 2
SMALL_BODY = 1 << 18  # smaller ones, in all slots, take less than the server's memory varies by

WAIT_SECONDS = 10  # after that, too many requests are ahead for the client's wait to be worthwhile
QUEUED = 4  # requests may wait that together need this many times the limit, …
# … and this many requests in any case: a client that is refused at once may retry at once, and
# reading five images, or a body of 42 MB, again and again costs the cores more than all images that
# are admitted.
HELD = 32
INCOMING = 4  # bodies and downloads of requests without a share may take a quarter of the limit

READ_SECONDS = 60  # for any body
# Not applied behind nginx, which buffers the whole body first: if a body is slow there, this
# machine is.
GRACE_SECONDS = 3  # after these, while others wait, …
PACE = 8 << 20  # … bytes a second that a body must bring: 42 MB get 8 s, less than others wait
LOOK_SECONDS = 0.25

# A download waits long enough for slow bodies to lose their room, and less than its image may take.
DOWNLOAD_WAIT_SECONDS = 4

Waiting = tuple[int, "asyncio.Future[bool]"]  # bytes, and whether they are granted


class BusyError(Exception):
    """The server has no memory for a request at present."""


class Pool:
    """A part of the budget, in bytes, given out in the order of arrival."""

    def __init__(self, limit: float, taken_by: str) -> None:
        self.limit, self.taken_by = limit, taken_by
        self.taken = 0
        self.queue: list[Waiting] = []

    async def take(self, size: int, seconds: float | None = None) -> int:
        """Takes `size` bytes once they are free; a size above the limit takes the whole limit.
        Returns the bytes taken."""
        size = int(min(size, self.limit))
        if self.queue or self.taken + size > self.limit:
            await self._wait(size, WAIT_SECONDS if seconds is None else seconds)
        else:
            self.taken += size
        return size

    async def _wait(self, size: int, seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._enqueue((size, turn))
        self.shorten(HELD)
        self._serve()  # it may be smaller than those that wait, and fit
        try:
            async with asyncio.timeout(seconds):
                served = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.result():
                self.give_back(size)  # its turn came just as it gave up
            else:
                self.queue = [each for each in self.queue if each[1] is not turn]
                self._serve()
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise
        if not served:
            raise self._busy()

    def _enqueue(self, waiting: Waiting) -> None:
        self.queue.append(waiting)

    def shorten(self, most: int = 0) -> None:
        """Refuses requests from the end of the queue while more than `most` wait and together they
        need more than QUEUED times the limit."""
        while len(self.queue) > most and sum(size for size, _ in self.queue) > QUEUED * self.limit:
            _, turn = self.queue.pop()
            if not turn.done():
                turn.set_result(False)

    def _busy(self) -> BusyError:
        return BusyError(f"{self.taken_by}; try again later")

    def give_back(self, size: int) -> None:
        self.taken -= size
        self._serve()

    def _serve(self) -> None:
        while self.queue:
            size, turn = self.queue[0]
            if not turn.done():
                if self.taken + size > self.limit:
                    return
                self.taken += size
                turn.set_result(True)
            self.queue.pop(0)


@dataclass(eq=False)
class Arrival:
    """A body that is arriving."""

    ends: asyncio.Timeout
    began: float  # on the event loop's clock
    came: int = 0  # bytes

    def is_slow(self, now: float) -> bool:
        return self.came < PACE * (now - self.began - GRACE_SECONDS)


class Incoming(Pool):
    """For bodies and downloads: the smallest goes first, and slow bodies lose their room to those
    that wait."""

    def __init__(self, limit: float, paced: bool) -> None:
        super().__init__(limit, "other requests take all memory for bodies and downloads")
        self.paced = paced
        self.arriving: set[Arrival] = set()
        self.looks: asyncio.TimerHandle | None = None

    def _enqueue(self, waiting: Waiting) -> None:
        insort(self.queue, waiting, key=lambda each: each[0])
        if self.paced and self.looks is None:
            self._look()

    def _look(self) -> None:
        self.end_slow()
        again = asyncio.get_running_loop().call_later
        self.looks = again(LOOK_SECONDS, self._look) if self.queue else None

    def end_slow(self) -> None:
        """Ends the bodies that arrive too slowly."""
        if not self.paced:
            return
        now = asyncio.get_running_loop().time()
        for arrival in self.arriving:
            # A body that has ended is still here until its reader has run.
            if not arrival.ends.expired() and arrival.is_slow(now):
                arrival.ends.reschedule(now)


class RequestMemory:
    """The budget in bytes; None for no limit. For the server's event loop only."""

    def __init__(self, limit: int | None, paced: bool = True) -> None:
        """`paced`: clients connect to this process, not to nginx."""
        most = math.inf if limit is None else limit
        self.incoming = Incoming(most / INCOMING, paced)  # of requests without a share
        images = "the images of other requests take all memory for images"
        self.shares = Pool(most * (1 - 1 / INCOMING), images)

    @property
    def taken(self) -> int:
        return self.incoming.taken + self.shares.taken

    def free_slots(self) -> None:
        """Makes room when all slots are taken: ends slow bodies, and refuses those that wait behind
        too many others."""
        self.incoming.end_slow()
        for pool in (self.incoming, self.shares):
            pool.shorten()


class BodyRoom:
    """The room that a request's body takes."""

    def __init__(self, memory: RequestMemory) -> None:
        self.memory = memory
        self.size = 0  # bytes it takes
        self.incoming = 0  # those still taken from `incoming`: the request has no share yet

    @asynccontextmanager
    async def arriving(self, receive: Receive, length: int) -> AsyncIterator[Receive]:
        """Waits for room for `length` bytes; yields a `receive` that counts what arrives."""
        if length >= SMALL_BODY:
            self.size = self.incoming = await self.memory.incoming.take(BODY_COPIES * length)
        async with asyncio.timeout(READ_SECONDS) as ends:
            arrival = Arrival(ends, asyncio.get_running_loop().time())

            async def counted() -> Message:
                message = await receive()
                arrival.came += len(message.get("body", b""))
                return message

            self.memory.incoming.arriving.add(arrival)
            try:
                yield counted
            finally:
                self.memory.incoming.arriving.remove(arrival)

    def settle(self) -> None:
        """Call once the request has its share of memory, or needs none."""
        settled, self.incoming = self.incoming, 0
        self.memory.incoming.give_back(settled)

    def close(self) -> None:
        """Call once the answer has ended."""
        self.settle()
        if self.size:
            # When pydantic validates a chat, it leaves reference cycles that hold the content parts
            # (an iterator for each kind of message it tries). Collecting the young generations
            # takes 1 ms.
            gc.collect(1)

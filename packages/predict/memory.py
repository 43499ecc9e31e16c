"""The memory that bodies and images of all requests together may take in this process.

Promises: a body of SMALL_BODY and more is read once there is room for it, and what an image's host
sends is kept while there is; all together stays within the limit `image_memory_bytes`, of which
three quarters are for requests whose images are decoded (images/memory.py). While one waits for
room to come in, or for a slot, bodies that come slower than PACE lose theirs; the smallest goes
first.
Refuses with `BusyError` (a 503) what waited WAIT_SECONDS, or waits behind too many others while
slots are wanted, and with a `TimeoutError` (a 408) a body that came too slowly.
"""

import asyncio
import gc
import math
from bisect import insort
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from predict.asgi import Message, Receive

# A body exists as the bytes that came, as the strings in it (twice, while vLLM parses it), and as
# the bytes of its images; vLLM keeps it until the answer has ended.
BODY_COPIES = 3
SMALL_BODY = 1 << 18  # what all slots take of these is less than the server's memory varies

WAIT_SECONDS = 10  # then as many requests are ahead as would make the client's wait pointless
QUEUED = 4  # requests that wait for so many times the limit wait for a turn, …
# … and so many in all: who is refused at once may ask again at once, and to read five images, or a
# body of 42 MB, again and again takes the cores more than all images that are let in.
HELD = 32
INCOMING = 4  # what came in for requests that have no share yet may take a quarter of the limit

READ_SECONDS = 60  # for any body
# Not behind nginx, which has a body whole before it passes it on: this machine is slow then.
GRACE_SECONDS = 3  # then, while others wait, …
PACE = 8 << 20  # … so many bytes a second: a body of 42 MB has 8 s, less than others wait
LOOK_SECONDS = 0.25

# A download waits until slow bodies have lost their room, and less than its image may take.
DOWNLOAD_WAIT_SECONDS = 4

Waiting = tuple[int, "asyncio.Future[bool]"]  # whether its turn has come


class BusyError(Exception):
    """The server has no memory for a request at present."""


class Pool:
    """A part of the budget, in bytes, given out in the order of arrival."""

    def __init__(self, limit: float, taken_by: str) -> None:
        self.limit, self.taken_by = limit, taken_by
        self.taken = 0
        self.queue: list[Waiting] = []

    async def take(self, size: int, seconds: float | None = None) -> int:
        """Takes so much, when it is there; a larger size takes the whole limit. Returns what was
        taken."""
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
        self._serve()  # a smaller one than those that wait may fit
        try:
            async with asyncio.timeout(seconds):
                served = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.result():
                self.give_back(size)  # its turn came as it left
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
        """Refuses the last of those that wait for more than QUEUED times the limit, until so many
        wait in all."""
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
    """A body that comes in."""

    ends: asyncio.Timeout
    began: float  # of the event loop
    came: int = 0  # bytes

    def is_slow(self, now: float) -> bool:
        return self.came < PACE * (now - self.began - GRACE_SECONDS)


class Incoming(Pool):
    """For what comes in: the smallest goes first, and slow bodies lose their room to who waits."""

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
        """Ends the bodies that come too slowly while others wait."""
        if not self.paced:
            return
        now = asyncio.get_running_loop().time()
        for arrival in self.arriving:
            # One that has ended, and whose reader was not woken yet, is here still.
            if not arrival.ends.expired() and arrival.is_slow(now):
                arrival.ends.reschedule(now)


class RequestMemory:
    """The budget; None for none. Used by the server's event loop only."""

    def __init__(self, limit: int | None, paced: bool = True) -> None:
        """`paced`: clients' own connections end here."""
        most = math.inf if limit is None else limit
        self.incoming = Incoming(most / INCOMING, paced)  # bodies and downloads without a share
        images = "the images of other requests take all memory for images"
        self.shares = Pool(most * (1 - 1 / INCOMING), images)

    @property
    def taken(self) -> int:
        return self.incoming.taken + self.shares.taken

    def free_slots(self) -> None:
        """Ends what waits in vain, or comes too slowly, where all slots are taken."""
        self.incoming.end_slow()
        for pool in (self.incoming, self.shares):
            pool.shorten()


class BodyRoom:
    """The room of a request's body."""

    def __init__(self, memory: RequestMemory) -> None:
        self.memory = memory
        self.size = 0  # what it takes
        self.incoming = 0  # the same, until the request has a share, or is found to need none

    @asynccontextmanager
    async def arriving(self, receive: Receive, length: int) -> AsyncIterator[Receive]:
        """Waits for room for so many bytes; then a `receive` for them."""
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
        """The request waits for no share any more."""
        settled, self.incoming = self.incoming, 0
        self.memory.incoming.give_back(settled)

    def close(self) -> None:
        """The answer has ended."""
        self.settle()
        if self.size:
            # Validating a chat, pydantic leaves cycles that hold its content parts (an iterator
            # for each kind of message it tries); to collect what is young takes 1 ms.
            gc.collect(1)

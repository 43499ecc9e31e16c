"""The memory that images of all requests together may take in this process.

Promises: a body of more than SMALL_BODY is read once there is room for it; a request takes its
whole share before it decodes its first image, in the order of arrival; a share lasts as long as the
decoded images exist, wherever they are, and what the engine keeps of them, and vLLM of the body,
until the answer has ended; all together stays within the limit `image_memory_bytes`. Refuses with
`BusyError` (a 503) what waited `WAIT_SECONDS`, or would wait behind too many others. (Freed images
return to the system by MALLOC_MMAP_THRESHOLD_, of deploy/variables.py.)
"""

import asyncio
import contextlib
import math
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

# Bytes per pixel, measured with Pillow's and mistral-common's code for every format and mode: RGB
# takes 4 in Pillow, and up to 20 while an image is decoded (WebP: 16, progressive CMYK: 12) or
# scaled to the encoder's size in 32-bit floats (19). A request does either with one of its images
# at a time.
DECODED = 4
WORKING = 20
# A body exists as the bytes that came, as the strings in it (twice, while vLLM parses it), and as
# the bytes of its images; vLLM keeps it until the answer has ended.
BODY_COPIES = 3
# The encoder's input is in the engine and, as part of the prompt, in vLLM's API server.
KEPT_COPIES = 2
SMALL_BODY = 1 << 18  # what all slots take of these is less than the server's memory varies

WAIT_SECONDS = 10  # then as many requests are ahead as would make the client's wait pointless
DISCARD_SECONDS = 10
QUEUED = 4  # requests wait for so many times the limit at most
INCOMING = 4  # what came in for requests that have no share yet may take a quarter of the limit


class BusyError(Exception):
    """The server has no memory for the images of a request at present."""

    def __init__(self) -> None:
        super().__init__("the images of other requests take all memory for images; try again later")


@dataclass(frozen=True)
class ImageCost:
    """What one image takes, in bytes."""

    downloaded: int  # 0 where the body has it
    pixels: int
    kept: int  # as the encoder's input, until the answer has ended


def cost_of(images: list[ImageCost]) -> tuple[int, int]:
    """Bytes that the images of a request take at most, and those that stay when they are freed."""
    downloaded = sum(image.downloaded for image in images)
    decoded = DECODED * sum(image.pixels for image in images)
    working = (WORKING - DECODED) * max(image.pixels for image in images)
    kept = KEPT_COPIES * sum(image.kept for image in images)
    return downloaded + decoded + working + kept, kept


class Share:
    """Part of the budget, until the request has ended, which `close` says, and its decoders have
    returned and its images are freed, which is observed."""

    def __init__(self, pool: "Pool", size: int, kept: int) -> None:
        self.pool, self.size, self.kept = pool, size, min(kept, size)
        self.loop = asyncio.get_running_loop()
        self.users = 0  # decoders that run and images that exist
        self.images: list[tuple[weakref.ref[Any], Callable[[], Any]]] = []
        self.closed = False

    async def run(self, executor: Executor, decode: Callable[[], Any]) -> Any:
        """What `decode` returns, an object with an image as its `media`. If nobody waits any more,
        the share still lasts until the thread has ended."""
        self.users += 1
        future = executor.submit(self._decode, decode)
        future.add_done_callback(lambda _: self._drop_threadsafe())
        try:
            return await asyncio.wrap_future(future)
        finally:
            del future  # a traceback of this frame would keep its image

    def _decode(self, decode: Callable[[], Any]) -> Any:
        decoded = decode()
        freed = weakref.finalize(decoded.media, self._drop_threadsafe)
        freed.atexit = False
        self.loop.call_soon_threadsafe(self._hold, weakref.ref(decoded.media), freed)
        return decoded

    def close(self, failed: bool = False) -> None:
        """`failed`: nothing uses the images any more, though the traceback of the error does."""
        self.closed = True
        self._settle()
        if failed:
            self._discard()
        elif self.users:  # a thread of vLLM may be about to scale them for a client that has left
            self.loop.call_later(DISCARD_SECONDS, self._discard)

    def _discard(self) -> None:
        """Frees the pixels of images that are referred to still, as by a cycle of references."""
        for reference, freed in self.images:
            if (image := reference()) is not None:
                image.close()
                freed()

    def _hold(self, image: "weakref.ref[Any]", freed: Callable[[], Any]) -> None:
        self.users += 1
        self.images.append((image, freed))

    def _drop(self) -> None:
        self.users -= 1
        self._settle()

    def _drop_threadsafe(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the server with it
            self.loop.call_soon_threadsafe(self._drop)

    def _settle(self) -> None:
        if self.users:
            return
        left = 0 if self.closed else self.kept
        given, self.size = self.size - left, left
        self.pool.give_back(given)


class Pool:
    """A part of the budget, in bytes, given out in the order of arrival."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.taken = 0
        self.queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Takes so much, when it is there; who needs more than the limit gets all. What it took."""
        size = int(min(size, self.limit))
        if self.queue or self.taken + size > self.limit:
            await self._wait(size)
        else:
            self.taken += size
        return size

    async def _wait(self, size: int) -> None:
        if sum(waiting for waiting, _ in self.queue) + size > QUEUED * self.limit:
            raise BusyError
        turn = asyncio.get_running_loop().create_future()
        self.queue.append((size, turn))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came as it left
                self.give_back(size)
            else:
                turn.cancel()
                self._serve()
            if isinstance(error, TimeoutError):
                raise BusyError from None
            raise

    def take_at_once(self, size: int) -> None:
        if self.taken + size > self.limit:
            raise BusyError
        self.taken += size

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
                turn.set_result(None)
            self.queue.popleft()


class ImageMemory:
    """The budget; None for none. Used by the server's event loop only."""

    def __init__(self, limit: int | None) -> None:
        most = math.inf if limit is None else limit
        self.incoming = Pool(most / INCOMING)  # bodies and downloads of requests without a share
        self.shares = Pool(most - most / INCOMING)

    @property
    def taken(self) -> int:
        return self.incoming.taken + self.shares.taken

    async def receive(self, body: int) -> int:
        """Waits until there is room for a body of so many bytes → what it takes of `incoming`."""
        return await self.incoming.take(BODY_COPIES * body) if body >= SMALL_BODY else 0

    async def take(self, images: list[ImageCost], body: int = 0) -> Share:
        """The share of a request with these images, in a body that takes so much."""
        size, kept = cost_of(images)
        return Share(self.shares, await self.shares.take(size + body), kept + body)

"""The share of a request's images in the memory for all requests (predict/memory.py).

Promises: a request takes its whole share, in order of arrival, before it decodes its first image.
The share lasts as long as the decoded images exist, wherever they are; what the engine keeps of
them, and vLLM of the body, counts until the answer has ended. (MALLOC_MMAP_THRESHOLD_, in
deploy/variables.py, returns freed images to the system.)
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from predict.memory import BODY_COPIES, KEPT_COPIES, Pool, RequestMemory

# Bytes per pixel, measured with Pillow's and mistral-common's code for every format and mode: RGB
# takes 4 in Pillow, and up to 20 while an image is decoded (WebP: 16, progressive CMYK: 12) or
# scaled to the encoder's size in 32-bit floats (19). A request does this to one of its images at a
# time.
DECODED = 4
WORKING = 20
DISCARD_SECONDS = 10


@dataclass(frozen=True)
class ImageCost:
    """What one image takes, in bytes."""

    downloaded: int  # 0 if it came in the body
    pixels: int
    kept: int  # as the encoder's input, until the answer has ended, in each place that keeps it


def cost_of(images: list[ImageCost], answers: int = 1) -> tuple[int, int]:
    """The most bytes that the images of a request take, and those that stay when they are freed.
    The API server keeps the encoder's input as part of the prompt, and the engine, which takes each
    answer as a request of its own, as often as there are answers."""
    downloaded = sum(image.downloaded for image in images)
    decoded = DECODED * sum(image.pixels for image in images)
    working = (WORKING - DECODED) * max(image.pixels for image in images)
    kept = (1 + answers) * sum(image.kept for image in images)
    return downloaded + decoded + working + kept, kept


class Share:
    """A part of the budget. It lasts until the request has ended, which `close` says, and its
    decoders have returned and its images are freed, which is observed."""

    def __init__(self, pool: Pool, size: int, kept: int) -> None:
        self.pool, self.size, self.kept = pool, size, min(kept, size)
        self.loop = asyncio.get_running_loop()
        self.users = 0  # decoders that run and images that exist
        self.images: list[tuple[weakref.ref[Any], Callable[[], Any]]] = []
        self.closed = False

    @classmethod
    async def take(
        cls, memory: RequestMemory, images: list[ImageCost], body: int = 0, answers: int = 1
    ) -> "Share":
        """The share of a request for so many answers with these images, in a body that takes `body`
        bytes."""
        size, kept = cost_of(images, answers)
        kept += body * KEPT_COPIES // BODY_COPIES
        return cls(memory.shares, await memory.shares.take(size + body), kept)

    async def run(self, executor: Executor, decode: Callable[[], Any]) -> Any:
        """What `decode` returns: an object whose `media` is an image. Even if nobody waits any
        more, the share lasts until the thread has ended."""
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
        """`failed`: nothing uses the images any more, though the error's traceback holds them."""
        self.closed = True
        self._settle()
        if failed:
            self._discard()
        elif self.users:  # vLLM may be about to scale them for a client that has disconnected
            self.loop.call_later(DISCARD_SECONDS, self._discard)

    def _discard(self) -> None:
        """Frees the pixels of images that are still referenced, by a reference cycle for
        instance."""
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

"""What the images of one request share: a deadline, look-ups, downloads, memory.

Promises: images with the same URL are fetched once and get the same bytes or the same error; a
download is cancelled with the last image that waits for it; no image is decoded before the sizes of
all are known and the request has its share of memory; if one fails, no other is decoded. The
middleware opens a batch for each request and closes it however the request ends; a ContextVar
carries it to vLLM's media connector.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from predict.images.memory import ImageCost, Share
from predict.memory import DOWNLOAD_WAIT_SECONDS, BodyRoom, RequestMemory

# A name server that does not answer may block a thread for 20 s (resolv.conf's `timeout` and
# `attempts`), even if nobody waits any more, so a request may block only a few.
LOOKUPS_PER_REQUEST = 2


@dataclass
class ImageBatch:
    """The images of one request, which vLLM loads concurrently."""

    memory: RequestMemory
    answers: int = 1  # or beams, each with the images
    open: bool = False  # until the middleware closes it; other batches end with their images
    deadline: float | None = None  # on the monotonic clock, set by the first fetch
    running: int = 0
    started: int = 0
    lookups: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(LOOKUPS_PER_REQUEST)
    )
    downloads: dict[str, "_Download"] = field(default_factory=dict)  # by URL, while anybody waits
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # URL → width, height, decoded
    costs: list[ImageCost] = field(default_factory=list)  # of the images whose size is known
    all_known: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None
    shares: list[Share] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of the image that is decoded
    downloaded: int = 0
    body: BodyRoom = field(init=False)  # the request's

    def __post_init__(self) -> None:
        self.body = BodyRoom(self.memory)

    def ends(self, seconds: float) -> float:
        """The deadline of all images of the request, on the monotonic clock. It moves with the time
        that they wait for their share."""
        if self.deadline is None:
            self.deadline = time.monotonic() + seconds
        return self.deadline

    @contextmanager
    def image(self) -> Iterator[int]:
        """The number of an image in the request, from 1, while it is loaded."""
        if not self.running:  # the first, or the first of a second reading of the same request
            self._end_round()
            self.started = 0
        self.started += 1
        self.running += 1
        try:
            yield self.started
        except BaseException as error:
            self.failure = self.failure or error
            self.all_known.set()
            raise
        finally:
            self.running -= 1
            if not self.running and not self.open:
                self._end_round()

    @asynccontextmanager
    async def share(self, cost: ImageCost) -> AsyncIterator[Share]:
        """The memory share of all images of the request, once the costs of all are known. The
        images have it in turn, as memory.py counts, unless one has failed."""
        self.costs.append(cost)
        if len(self.costs) == self.running:
            self.all_known.set()
        await self.all_known.wait()
        async with self.turn:
            if self.failure is not None:  # another image's, or there was no room for all of them
                raise self.failure
            if not self.shares:
                began = time.monotonic()
                taken = Share.take(self.memory, self.costs, self.body.size, self.answers)
                self.shares.append(await taken)
                if self.deadline is not None:  # a second reading fetches them again
                    self.deadline += time.monotonic() - began
                self._forget_downloads()
                self.body.settle()
            yield self.shares[0]

    async def download(self, size: int) -> None:
        """Counts downloaded bytes, once there is room for them."""
        taken = await self.memory.incoming.take(size, DOWNLOAD_WAIT_SECONDS)
        self.downloaded += taken

    def close(self) -> None:
        self.open = False
        error = self.failure
        self._end_round()
        while error is not None:  # its frames form cycles with it, and hold the body
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        self.body.close()

    def _end_round(self) -> None:
        for share in self.shares:
            share.close(failed=self.failure is not None)
        self._forget_downloads()
        self.shares, self.costs, self.failure, self.all_known = [], [], None, asyncio.Event()

    def _forget_downloads(self) -> None:
        self.memory.incoming.give_back(self.downloaded)
        self.downloaded = 0

    async def once(self, url: str, fetch: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """What `fetch` returns or raises, shared by all that ask for the URL while it runs. It is
        cancelled when the last of them is."""
        if (download := self.downloads.get(url)) is None:
            download = self.downloads[url] = _Download(asyncio.create_task(fetch()))
        download.waiting += 1
        try:
            return await asyncio.shield(download.task)
        finally:
            download.waiting -= 1
            if not download.waiting:
                del self.downloads[url]
                download.task.cancel()


@dataclass
class _Download:
    task: asyncio.Task[bytes]
    waiting: int = 0


# Outside a request that the middleware began, each image is a batch by itself.
_batch: ContextVar[ImageBatch] = ContextVar("image_batch")


def begin_batch(memory: RequestMemory) -> ImageBatch:
    """Images loaded in this context, from now on, belong to a new batch."""
    batch = ImageBatch(memory)
    _batch.set(batch)
    return batch


@contextmanager
def image_batch(memory: RequestMemory) -> Iterator[ImageBatch]:
    """A batch for the images of a request, closed at the end."""
    batch = ImageBatch(memory, open=True)
    token = _batch.set(batch)
    try:
        yield batch
    finally:
        _batch.reset(token)
        batch.close()


def current_batch() -> ImageBatch | None:
    return _batch.get(None)

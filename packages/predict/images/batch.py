"""What the images of one request share: a deadline, look-ups, downloads, their order of decoding.

Promises: images with the same URL are fetched once and get the same bytes or the same error; a
download is cancelled with the last image that waits for it; images are numbered from 1. The
middleware begins a batch for each request; a ContextVar carries it to vLLM's media connector.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

# A name server that does not answer may block a thread for 20 s (resolv.conf's `timeout` and
# `attempts`), whether or not anybody still waits: a request may block few of them.
LOOKUPS_PER_REQUEST = 2


@dataclass
class ImageBatch:
    """The images of one request, which vLLM loads concurrently."""

    deadline: float | None = None  # on the monotonic clock, set by the first fetch
    running: int = 0
    started: int = 0
    decoding: asyncio.Lock = field(default_factory=asyncio.Lock)
    lookups: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(LOOKUPS_PER_REQUEST)
    )
    downloads: dict[str, "_Download"] = field(default_factory=dict)  # by URL, while anybody waits
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # URL → width, height, decoded

    def ends(self, seconds: float) -> float:
        """When the time for all images of the request is over."""
        if self.deadline is None:
            self.deadline = time.monotonic() + seconds
        return self.deadline

    @contextmanager
    def image(self) -> Iterator[int]:
        """The number of an image within the request, from 1, while it is loaded."""
        self.started = self.started + 1 if self.running else 1
        self.running += 1
        try:
            yield self.started
        finally:
            self.running -= 1

    async def once(self, url: str, fetch: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """What `fetch` returns or raises, shared by all who ask for the URL while it runs. It is
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


# Outside of a request that the middleware began, each image is a batch by itself.
_batch: ContextVar[ImageBatch] = ContextVar("image_batch")


def begin_batch() -> ImageBatch:
    """Images loaded in this context, from now on, belong to a new batch."""
    batch = ImageBatch()
    _batch.set(batch)
    return batch


def current_batch() -> ImageBatch | None:
    return _batch.get(None)

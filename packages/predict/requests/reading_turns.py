"""Large requests take turns in the event loop, and leave it to others in between.

To read one takes the loop up to 4 ms here, for its JSON and our checks, and vLLM up to four times
that, for its models and its conversation. Where eight clients send such requests without a pause,
the loop has no time left for short ones.

Promises: after a large request is read, the next one waits `REST` times the CPU time that took, in
order of arrival. One alone waits for nothing, nor does a small one, nor an answer. What vLLM takes
falls into that time, and is not bounded where it is more.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

LARGE = 16384  # bytes; 0.03 ms, where they are text
REST = 4.0

Read = TypeVar("Read")


class ReadingTurns:
    def __init__(self) -> None:
        self.order = asyncio.Lock()
        self.free_at = 0.0

    async def take(self, size: int, read: Callable[[], Read]) -> Read:
        """What `read` returns, which reads a request of `size` bytes."""
        if size <= LARGE:
            return read()
        async with self.order:
            while (left := self.free_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            began = time.thread_time()
            try:
                return read()
            finally:
                self.free_at = time.monotonic() + REST * (time.thread_time() - began)

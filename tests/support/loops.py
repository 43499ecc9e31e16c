"""Tests in an event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(test: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What it returns, unless it hangs."""
    return asyncio.run(asyncio.wait_for(test(), 30))


async def settled() -> None:
    """Until what is ready has run."""
    for _ in range(3):
        await asyncio.sleep(0)

"""Runs tests in an event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(test: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The test's result, unless it hangs."""
    return asyncio.run(asyncio.wait_for(test(), 30))


async def settled() -> None:
    """Waits until everything that is ready has run."""
    for _ in range(3):
        await asyncio.sleep(0)

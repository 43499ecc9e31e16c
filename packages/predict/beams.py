"""Runs vLLM's beam searches for one request at a time.

For each token of each beam, vLLM gives the engine the whole prompt again, as a separate request.
Beside eight clients with 10 beams each, a neighbour waited 8 times its own time if their prompts
had 1 KB, and 14 times with 13 KB.

Promises: a search begins when those that came before it have ended or their clients have
disconnected. One that has waited WAIT_SECONDS gets a 503.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

WAIT_SECONDS = 30.0
BUSY = "other beam searches are running; try again later"


def install() -> None:
    from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin
    from vllm.exceptions import GracefulHTTPError

    search = BeamSearchOnlineMixin.beam_search
    if hasattr(search, "__wrapped__"):
        return
    turn = asyncio.Lock()

    @functools.wraps(search)
    async def in_turn(self: Any, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn.acquire()
        except TimeoutError:
            raise GracefulHTTPError(BUSY, HTTPStatus.SERVICE_UNAVAILABLE) from None
        try:
            async with aclosing(search(self, *arguments, **named)) as outputs:
                found = [output async for output in outputs]  # one; its reader may be slow
        finally:
            turn.release()
        for output in found:
            yield output

    BeamSearchOnlineMixin.beam_search = in_turn

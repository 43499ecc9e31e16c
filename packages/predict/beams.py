"""Runs vLLM's beam searches for one request at a time.

For each token of each beam, vLLM gives the engine the whole prompt again, as a separate request.
Beside eight clients with 10 beams each, a neighbour waited 8 times its own time if their prompts
had 1 KB, and 14 times with 13 KB.

Promises: a search begins when those that came before it have ended or their clients have
disconnected.
"""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any


def install() -> None:
    from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin

    search = BeamSearchOnlineMixin.beam_search
    if hasattr(search, "__wrapped__"):
        return
    turn = asyncio.Lock()

    @functools.wraps(search)
    async def in_turn(self: Any, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        async with turn, aclosing(search(self, *arguments, **named)) as outputs:
            found = [output async for output in outputs]  # one; its client may read it slowly
        for output in found:
            yield output

    BeamSearchOnlineMixin.beam_search = in_turn

"""Beam searches take turns, in the order in which they came, and who leaves makes room."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
from predict import beams
from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin


class Serving:
    """What vLLM's mixin is part of: a search of three turns of the event loop."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def search(self, name: str, fails: bool = False) -> AsyncIterator[str]:
        self.seen.append(f"{name} begins")
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if fails:
                raise ValueError(name)
            yield name
        finally:
            self.seen.append(f"{name} ends")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The search that vLLM's servers have once it is installed."""
    monkeypatch.setattr(BeamSearchOnlineMixin, "beam_search", Serving.search)
    beams.install()
    installed = BeamSearchOnlineMixin.beam_search
    beams.install()
    assert BeamSearchOnlineMixin.beam_search is installed
    return installed


async def outputs_of(outputs: Any) -> list[str]:
    return [output async for output in outputs]


def test_a_search_begins_when_the_one_before_has_ended(search: Any) -> None:
    serving = Serving()

    async def main() -> list[list[str]]:
        return await asyncio.gather(*(outputs_of(search(serving, name)) for name in "abc"))

    assert asyncio.run(main()) == [["a"], ["b"], ["c"]]
    assert serving.seen == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


def test_one_that_fails_or_leaves_lets_the_next_begin(search: Any) -> None:
    serving = Serving()

    async def main() -> list[str]:
        failing = asyncio.create_task(outputs_of(search(serving, "failing", fails=True)))
        leaving = asyncio.create_task(outputs_of(search(serving, "leaving")))
        waiting = asyncio.create_task(outputs_of(search(serving, "waiting")))
        last = asyncio.create_task(outputs_of(search(serving, "last")))
        with pytest.raises(ValueError, match="failing"):
            await failing
        while "leaving begins" not in serving.seen:
            await asyncio.sleep(0)
        leaving.cancel()
        waiting.cancel()
        return await last

    assert asyncio.run(main()) == ["last"]
    assert serving.seen[2:] == ["leaving begins", "leaving ends", "last begins", "last ends"]


def test_a_reader_that_is_slow_keeps_nobody_waiting(search: Any) -> None:
    serving = Serving()

    async def main() -> list[str]:
        async with aclosing(search(serving, "slow")) as slow:
            await anext(slow)
            return await outputs_of(search(serving, "next"))

    assert asyncio.run(main()) == ["next"]


def test_one_that_waits_too_long_is_told(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beams, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(asyncio, "sleep", partial(asyncio.sleep, 0.02))

    async def main() -> list[Any]:
        both = (outputs_of(search(Serving(), name)) for name in "ab")
        return await asyncio.gather(*both, return_exceptions=True)

    first, second = asyncio.run(main())
    assert first == ["a"]
    assert second.http_status == 503

"""Large requests take turns in the event loop, and leave it to others in between."""

import asyncio
import itertools
import time
from collections.abc import Callable

import pytest
from predict.requests.reading_turns import LARGE, REST, ReadingTurns

SECONDS = 0.02  # of CPU that one takes to be read
Span = tuple[str, float, float]


def reader(spans: list[Span], name: str, fails: bool = False) -> Callable[[], str]:
    def read() -> str:
        began, used = time.monotonic(), time.thread_time()
        while time.thread_time() - used < SECONDS:
            pass
        spans.append((name, began, time.monotonic()))
        if fails:
            raise ValueError(name)
        return name

    return read


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_one_waits_for_as_long_as_is_left_to_others(fails: bool) -> None:
    """In order of arrival, whether they are taken or refused."""
    spans: list[Span] = []

    async def three() -> list[str | BaseException]:
        turns = ReadingTurns()
        asked = [turns.take(LARGE + 1, reader(spans, name, fails)) for name in "abc"]
        return await asyncio.gather(*asked, return_exceptions=True)

    said = asyncio.run(three())
    assert [str(it) for it in said] == ["a", "b", "c"] == [name for name, _, _ in spans]
    assert [isinstance(it, ValueError) for it in said] == [fails] * 3
    for (_, _, ended), (_, again, _) in itertools.pairwise(spans):
        assert again - ended >= REST * SECONDS


def test_others_have_the_event_loop_meanwhile_and_small_ones_wait_for_nothing() -> None:
    spans: list[Span] = []

    async def beside() -> list[str]:
        turns = ReadingTurns()
        large = [asyncio.create_task(turns.take(LARGE + 1, reader(spans, "l"))) for _ in range(2)]
        await asyncio.sleep(0)
        await turns.take(LARGE, lambda: spans.append(("small", 0.0, 0.0)))
        return list(await asyncio.gather(*large))

    assert asyncio.run(beside()) == ["l", "l"]
    assert [name for name, _, _ in spans] == ["l", "small", "l"]


def test_one_alone_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.setattr(asyncio, "sleep", never)
    assert asyncio.run(ReadingTurns().take(LARGE + 1, lambda: "read")) == "read"


def test_one_that_is_cancelled_gives_its_turn_up() -> None:
    async def leaves() -> str:
        turns = ReadingTurns()
        await turns.take(LARGE + 1, reader([], "first"))
        gone = asyncio.create_task(turns.take(LARGE + 1, lambda: pytest.fail("is read")))
        await asyncio.sleep(0)
        gone.cancel()
        return await turns.take(LARGE + 1, lambda: "next")

    assert asyncio.run(leaves()) == "next"

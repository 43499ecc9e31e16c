"""Large requests take turns in the event loop, and leave it to others in between."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from functools import partial

import pytest
from predict.asgi import App, ClientLeftError, Message, Receive, Scope, Send
from predict.errors import RequestError
from predict.requests.turns import (
    AHEAD_BYTES,
    COSTLY_BURST,
    COSTLY_SECONDS,
    FIRST_STEPS,
    LARGE,
    MOST_REST,
    NOTICED_SECONDS,
    REST,
    SMALLEST,
    ReadingTurns,
    ShowingTurns,
)

SECONDS = 0.02  # of CPU that one takes to be read
Span = tuple[str, float, float]


async def stays() -> Message:
    await asyncio.sleep(3600)
    raise AssertionError


async def leaves() -> Message:
    return {"type": "http.disconnect"}


def work(seconds: float) -> None:
    used = time.thread_time()
    while time.thread_time() - used < seconds:
        pass


def reader(spans: list[Span], name: str, fails: bool = False) -> Callable[[], str]:
    def read() -> str:
        began = time.monotonic()
        work(SECONDS)
        spans.append((name, began, time.monotonic()))
        if fails:
            raise ValueError(name)
        return name

    return read


def beside_a_small_one() -> ReadingTurns:
    turns = ReadingTurns()
    turns.small = 1
    return turns


@pytest.mark.parametrize("fails", [False, True])
def test_the_next_one_waits_for_as_long_as_is_left_to_others(fails: bool) -> None:
    """In order of arrival, whether they are taken or refused."""
    spans: list[Span] = []

    async def three() -> list[str | BaseException]:
        turns = beside_a_small_one()
        asked = [turns.take(LARGE + 1, stays, reader(spans, name, fails)) for name in "abc"]
        return await asyncio.gather(*asked, return_exceptions=True)

    said = asyncio.run(three())
    assert [str(it) for it in said] == ["a", "b", "c"] == [name for name, _, _ in spans]
    assert [isinstance(it, ValueError) for it in said] == [fails] * 3
    for (_, _, ended), (_, again, _) in itertools.pairwise(spans):
        assert again - ended >= REST * SECONDS


def test_large_ones_among_themselves_do_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a small one was answered lately they do."""

    async def rest(small: bool) -> float:
        turns = ReadingTurns()
        if small:
            await answered(turns, LARGE)
        await turns.take(LARGE + 1, stays, reader([], "large"))
        await answered(turns, LARGE + 1, SECONDS)
        return turns.free_at - time.monotonic()

    assert asyncio.run(rest(small=False)) <= 0
    assert asyncio.run(rest(small=True)) > 0
    monkeypatch.setattr("predict.requests.turns.LATELY_SECONDS", 0.0)
    assert asyncio.run(rest(small=True)) <= 0


def test_small_ones_that_are_costly_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """In reading or in vLLM; smaller ones do not, nor do any some time later."""
    monkeypatch.setattr("predict.requests.turns.COSTLY_SHARE", 0.0)
    for reads in (True, False):
        turns, size = ReadingTurns(), LARGE // 2

        async def ask(turns: ReadingTurns = turns, size: int = size, reads: bool = reads) -> None:
            if reads:
                await turns.take(size, stays, lambda: work(COSTLY_BURST / 3))
            else:
                await answered(turns, size, COSTLY_BURST / 3)

        for _ in range(3):
            assert not turns.is_large(size)
            asyncio.run(ask())
        asyncio.run(ask())
        assert turns.is_large(size)
        assert not turns.is_large(size - 1)
        turns.small = 1
        asyncio.run(ask())
        assert turns.free_at > time.monotonic()
        with monkeypatch.context() as later:
            later.setattr("predict.requests.turns.LATELY_SECONDS", 0.0)
            assert not turns.is_large(size)


def test_those_as_large_as_costly_ones_are_still_small_for_others() -> None:
    """Their answers are what the costly ones have to leave time for."""
    turns = ReadingTurns()
    turns.large, turns.large_at = LARGE // 4, time.monotonic()
    asyncio.run(answered(turns, LARGE // 2))
    turns._spent(LARGE // 4, SECONDS)
    assert turns.free_at > time.monotonic()


def test_ordinary_and_very_small_ones_are_never_large() -> None:
    turns = ReadingTurns()
    for _ in range(100):
        turns._spent(LARGE, COSTLY_SECONDS / 2)
        turns._spent(SMALLEST - 1, COSTLY_BURST)
    turns._spent(LARGE, COSTLY_BURST * 0.9)  # a collection of garbage
    assert not turns.is_large(LARGE)


def test_only_the_first_steps_of_a_small_answer_are_timed() -> None:
    async def twice() -> ReadingTurns:
        turns = ReadingTurns()
        await answered(turns, LARGE, *[0.0] * FIRST_STEPS, COSTLY_BURST * 2)
        return turns

    assert asyncio.run(twice()).costly == 0.0


def test_others_have_the_event_loop_meanwhile_and_small_ones_wait_for_nothing() -> None:
    spans: list[Span] = []

    async def beside() -> list[str]:
        turns = beside_a_small_one()
        large = [
            asyncio.create_task(turns.take(LARGE + 1, stays, reader(spans, "l"))) for _ in range(2)
        ]
        await asyncio.sleep(0)
        await turns.take(LARGE, stays, lambda: spans.append(("small", 0.0, 0.0)))
        return list(await asyncio.gather(*large))

    assert asyncio.run(beside()) == ["l", "l"]
    assert [name for name, _, _ in spans] == ["l", "small", "l"]


def test_one_alone_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.setattr(asyncio, "sleep", never)
    monkeypatch.setattr(ReadingTurns, "_wait", never)
    assert asyncio.run(ReadingTurns().take(LARGE + 1, stays, lambda: "read")) == "read"


def test_who_has_left_is_not_read_and_who_waits_too_long_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("predict.requests.turns.WAIT_SECONDS", 0.05)

    async def three() -> list[str | BaseException]:
        turns, spans = beside_a_small_one(), list[Span]()
        turns.pause(MOST_REST / 50)
        gone = turns.take(LARGE + 1, leaves, lambda: pytest.fail("is read"))
        first = turns.take(LARGE + 1, stays, reader(spans, "first"))
        late = turns.take(LARGE + 1, stays, lambda: pytest.fail("is read"))
        return list(await asyncio.gather(gone, first, late, return_exceptions=True))

    gone, first, late = asyncio.run(three())
    assert isinstance(gone, ClientLeftError)
    assert first == "first"
    assert isinstance(late, RequestError)
    assert late.status == 503


def test_a_smaller_one_goes_first_but_not_for_ever() -> None:
    async def order() -> list[str]:
        turns, spans = ReadingTurns(), list[Span]()
        turns.pause(0.2)

        async def take(name: str, size: int, after: float) -> None:
            await asyncio.sleep(after)
            await turns.take(size, stays, reader(spans, name))

        tenth = AHEAD_BYTES // 10
        await asyncio.gather(
            take("large", LARGE + tenth, 0),
            take("small", LARGE + 1, 0.05),
            take("late", LARGE + 1, 0.15),
        )
        return [name for name, _, _ in spans]

    assert asyncio.run(order()) == ["small", "large", "late"]


def test_nobody_waits_for_long_after_a_step_that_was_long() -> None:
    turns = ReadingTurns()
    for _ in range(3):
        turns.pause(3600)
    assert turns.free_at <= time.monotonic() + MOST_REST


def test_one_that_is_cancelled_gives_its_turn_up() -> None:
    async def cancelled() -> str:
        turns = ReadingTurns()
        await turns.take(LARGE + 1, stays, reader([], "first"))
        gone = asyncio.create_task(turns.take(LARGE + 1, stays, lambda: pytest.fail("is read")))
        await asyncio.sleep(0)
        gone.cancel()
        return await turns.take(LARGE + 1, stays, lambda: "next")

    assert asyncio.run(cancelled()) == "next"


async def answered(turns: ReadingTurns, size: int, *steps: float, fails: bool = False) -> str:
    """An answer in steps that take the event loop so long."""

    async def answer() -> str:
        for seconds in steps:
            work(seconds)
            await asyncio.sleep(0)
        if fails:
            raise ValueError
        return "answer"

    return await turns.answer(size, answer())


def test_what_an_answer_takes_of_the_event_loop_counts_and_what_others_take_does_not() -> None:
    async def beside() -> tuple[float, str]:
        turns = beside_a_small_one()
        other = asyncio.create_task(answered(turns, LARGE, *[SECONDS] * 5))  # a small one
        began = time.monotonic()
        said = await answered(turns, LARGE + 1, SECONDS, NOTICED_SECONDS / 2, 0)
        rest = turns.free_at - began
        await other
        return rest, said

    rest, said = asyncio.run(beside())
    assert said == "answer"
    assert REST * SECONDS <= rest < 1.5 * (1 + REST) * SECONDS


def test_an_error_of_an_answer_is_its_own_and_one_from_outside_reaches_it() -> None:
    seen = []

    async def left() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def both() -> None:
        turns = ReadingTurns()
        with pytest.raises(ValueError, match=r"^$"):
            await answered(turns, LARGE + 1, 0, fails=True)
        leaving = asyncio.create_task(turns.answer(LARGE + 1, left()))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving

    asyncio.run(both())
    assert seen == ["cancelled"]


def test_an_answer_may_go_on_after_an_error_from_outside() -> None:
    async def goes_on() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(0)
        return "answer"

    async def cancelled() -> str:
        work = asyncio.create_task(ReadingTurns().answer(LARGE + 1, goes_on()))
        await asyncio.sleep(0)
        work.cancel()
        return str(await work)

    assert asyncio.run(cancelled()) == "answer"


async def show(turns: ShowingTurns, app: App, sent: list[str]) -> None:
    async def send(message: Message) -> None:
        sent.append(message["type"])
        await asyncio.sleep(3600 if message["type"] == "slow" else 0)

    await turns.answer(LARGE + 1, stays, send, partial(app, {}, stays))


@pytest.mark.parametrize("fails", [False, True])
def test_of_what_is_shown_one_is_made_at_a_time_with_a_rest_as_long(fails: bool) -> None:
    spans: list[Span] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        await asyncio.sleep(SECONDS)
        spans.append(("shown", began, time.monotonic()))
        if fails:
            raise ValueError
        await send({"type": "http.response.start"})

    async def three() -> list[BaseException | None]:
        turns = ShowingTurns()
        return await asyncio.gather(
            *(show(turns, app, []) for _ in range(3)), return_exceptions=True
        )

    assert [isinstance(it, ValueError) for it in asyncio.run(three())] == [fails] * 3
    for (_, _, ended), (_, again, _) in itertools.pairwise(spans):
        assert again - ended >= SECONDS


def test_a_client_that_does_not_read_what_is_shown_keeps_no_other_waiting() -> None:
    kinds = iter(["slow", "quick"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": next(kinds)})

    async def two() -> list[str]:
        turns, sent = ShowingTurns(), list[str]()
        slow = asyncio.create_task(show(turns, app, sent))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await show(turns, app, sent)
        slow.cancel()
        return sent

    assert asyncio.run(two()) == ["slow", "quick"]


def test_what_is_shown_to_a_client_that_left_is_not_waited_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "shown"})

    async def both() -> list[str]:
        turns, sent = ShowingTurns(), list[str]()
        turns.free_at = time.monotonic() + 0.05
        gone = asyncio.create_task(show(turns, app, sent))
        await asyncio.sleep(0)
        gone.cancel()
        await show(turns, app, sent)
        return sent

    assert asyncio.run(both()) == ["shown"]

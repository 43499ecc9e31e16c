"""Room for bodies and downloads (predict/memory.py)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from predict import memory
from predict.asgi import Message
from predict.images.batch import ImageBatch
from predict.images.memory import ImageCost, Share
from predict.memory import BODY_COPIES, KEPT_COPIES, BodyRoom, BusyError, RequestMemory

from tests.support.loops import run, settled

MIB = 1 << 20


async def never() -> Message:
    return await asyncio.Future()


def room_for(bodies: int, size: int) -> RequestMemory:
    return RequestMemory(memory.INCOMING * BODY_COPIES * bodies * size)


async def read(body: BodyRoom, length: int, receive: Callable[[], Any] = never) -> Message:
    async with body.arriving(receive, length) as coming:
        return await coming()


async def whole() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_body_is_read_when_there_is_room_and_lasts_until_the_answer_has_ended() -> None:
    async def test() -> None:
        budget = room_for(1, 5 * MIB)
        first, second = BodyRoom(budget), BodyRoom(budget)
        await read(first, 5 * MIB, whole)
        assert first.size == BODY_COPIES * 5 * MIB
        waits = asyncio.create_task(read(second, 5 * MIB, whole))
        await settled()
        assert not waits.done()
        share = await Share.take(budget, [ImageCost(0, 100, 0)], first.size)
        first.settle()
        await waits
        share._settle()  # no decoder runs and no image is left
        assert budget.shares.taken == KEPT_COPIES * 5 * MIB
        share.close()
        second.settle()
        assert budget.taken == 0

    run(test)


def test_small_bodies_and_one_larger_than_the_budget_do_not_wait_for_ever() -> None:
    async def test() -> None:
        budget = RequestMemory(4 * MIB)
        small, large = BodyRoom(budget), BodyRoom(budget)
        await read(small, memory.SMALL_BODY - 1, whole)
        await read(large, 64 * MIB, whole)
        assert (small.size, large.size) == (0, MIB)

    run(test)


@pytest.mark.parametrize("announced", [5 * MIB, 50 * MIB])
def test_bodies_that_do_not_come_lose_their_room_to_those_that_wait(
    announced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are."""
    monkeypatch.setattr(memory, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.01)

    async def test() -> None:
        budget = room_for(3, announced)

        async def attack() -> None:
            body = BodyRoom(budget)
            try:
                await read(body, announced)
            finally:
                body.settle()

        attacks = [asyncio.create_task(attack()) for _ in range(memory.HELD + 20)]
        await settled()
        assert budget.incoming.taken == 3 * BODY_COPIES * announced
        await read(BodyRoom(budget), MIB, whole)
        for attacker in attacks:
            attacker.cancel()
        errors = await asyncio.gather(*attacks, return_exceptions=True)
        # those that waited are put off, or lose their turn, or would have
        assert {type(error) for error in errors} >= {TimeoutError, BusyError}

    run(test)


def test_a_slow_body_for_whose_room_nobody_waits_may_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "GRACE_SECONDS", 0)
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.01)

    async def slow() -> Message:
        await asyncio.sleep(0.1)
        return await whole()

    async def test() -> None:
        budget = room_for(2, 5 * MIB)
        body = BodyRoom(budget)
        reading = asyncio.create_task(read(body, 5 * MIB, slow))
        await settled()
        await read(BodyRoom(budget), 5 * MIB, whole)
        await reading

    run(test)


def test_a_body_that_keeps_its_pace_keeps_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """While others wait."""
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.01)

    async def test() -> None:
        budget, go = room_for(1, 5 * MIB), asyncio.Event()

        async def steady() -> Message:
            await go.wait()
            return await whole()

        body = BodyRoom(budget)
        first = asyncio.create_task(read(body, 5 * MIB, steady))
        await settled()
        second = asyncio.create_task(read(BodyRoom(budget), 5 * MIB, whole))
        await asyncio.sleep(0.1)  # less than the grace
        go.set()
        await first
        body.settle()
        await second

    run(test)


def test_the_smallest_body_that_waits_is_read_first() -> None:
    async def test() -> None:
        budget, order = room_for(1, 9 * MIB), []

        async def request(size: int) -> None:
            body = BodyRoom(budget)
            await read(body, size * MIB, whole)
            order.append(size)
            body.settle()

        first = BodyRoom(budget)
        await read(first, 9 * MIB, whole)
        waiting = [asyncio.create_task(request(size)) for size in (8, 2, 5)]
        await settled()
        first.settle()
        await asyncio.gather(*waiting)
        assert order == [2, 5, 8]

    run(test)


def test_a_body_that_does_not_come_at_all_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "READ_SECONDS", 0.01)

    async def test() -> None:
        budget = RequestMemory(None)
        for size in (10, 5 * MIB):
            with pytest.raises(TimeoutError):
                await read(BodyRoom(budget), size)
        assert budget.incoming.arriving == set()

    run(test)


def test_downloads_without_a_share_take_a_part_of_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        incoming = RequestMemory(1000).incoming
        assert await incoming.take(250, 0.01) == 250
        with pytest.raises(BusyError, match="bodies and downloads; try again later"):
            await incoming.take(1, 0.01)
        incoming.give_back(250)
        await incoming.take(250)
        await RequestMemory(None).incoming.take(1 << 40)

    run(test)


def test_a_slow_body_is_ended_once_though_its_reader_was_not_woken_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "GRACE_SECONDS", 0)

    async def test() -> None:
        budget = room_for(1, MIB)
        reading = asyncio.create_task(read(BodyRoom(budget), MIB))
        await asyncio.sleep(0.001)
        budget.incoming.end_slow()
        await asyncio.sleep(0)  # its time is over; the reader is told in the next turn of the loop
        budget.incoming.end_slow()
        with pytest.raises(TimeoutError):
            await reading

    run(test)


def test_behind_nginx_no_body_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GRACE_SECONDS", 0)

    async def test() -> None:
        budget = RequestMemory(64 * MIB, paced=False)
        reading = asyncio.create_task(read(BodyRoom(budget), MIB))
        await settled()
        another = asyncio.create_task(read(BodyRoom(budget), 64 * MIB))
        await settled()
        budget.incoming.end_slow()
        await settled()
        assert not reading.done()
        assert budget.incoming.queue
        assert budget.incoming.looks is None
        for task in (reading, another):
            task.cancel()
        await asyncio.gather(reading, another, return_exceptions=True)

    run(test)


def test_what_fits_does_not_wait_behind_what_does_not() -> None:
    async def test() -> None:
        incoming = RequestMemory(4000).incoming
        await incoming.take(600)
        large = asyncio.create_task(incoming.take(500))
        await settled()
        assert await asyncio.wait_for(incoming.take(100), 1) == 100
        incoming.give_back(700)
        assert await large == 500

    run(test)


def test_downloads_that_wait_at_once_are_all_given_back() -> None:
    async def test() -> None:
        budget = RequestMemory(4000)
        await budget.incoming.take(1000)
        batch = ImageBatch(budget)
        downloads = [asyncio.create_task(batch.download(100)) for _ in range(5)]
        await settled()
        budget.incoming.give_back(1000)
        await asyncio.gather(*downloads)
        assert batch.downloaded == 500
        batch.close()
        assert budget.taken == 0

    run(test)

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from predict import memory
from predict.images import memory as image_memory
from predict.images.memory import ImageCost, Share, cost_of
from predict.memory import BusyError, RequestMemory

from tests.support.loops import run, settled

MEGAPIXEL = ImageCost(downloaded=0, pixels=1 << 20, kept=0)
(MEBIBYTES_20, _) = cost_of([MEGAPIXEL])


def test_the_cost_counts_what_was_sent_decoded_worked_on_and_kept() -> None:
    small, large = ImageCost(10, 100, 7), ImageCost(20, 300, 9)
    assert cost_of([small, large]) == (30 + 4 * 400 + 16 * 300 + 2 * 16, 2 * 16)
    of_three, kept = cost_of([small, large], answers=3)
    assert (of_three - cost_of([small, large])[0], kept) == (2 * 16, 4 * 16)


def test_requests_get_their_shares_in_the_order_of_arrival() -> None:
    async def test() -> None:
        budget, order = RequestMemory(3 * MEBIBYTES_20), []

        async def request(name: str, count: int) -> Share:
            share = await Share.take(budget, [MEGAPIXEL] * count)
            order.append(name)
            return share

        first = await request("first", 1)
        second = await request("second", 1)
        large = asyncio.create_task(request("large", 30))  # more than there is: all of it
        small = asyncio.create_task(request("small", 1))  # would fit, but came later
        await settled()
        assert order == ["first", "second"]
        first.close()
        await settled()
        assert order == ["first", "second"]
        second.close()
        (await large).close()
        (await small).close()
        assert order == ["first", "second", "large", "small"]
        assert budget.taken == 0

    run(test)


def test_a_request_that_waited_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WAIT_SECONDS", 0.05)

    async def test() -> None:
        budget = RequestMemory(MEBIBYTES_20)
        share = await Share.take(budget, [MEGAPIXEL])
        with pytest.raises(BusyError):
            await Share.take(budget, [MEGAPIXEL])
        share.close()
        (await Share.take(budget, [MEGAPIXEL])).close()
        assert (budget.taken, len(budget.shares.queue)) == (0, 0)

    run(test)


def test_who_waits_behind_too_many_others_is_refused_where_slots_are_wanted() -> None:
    """And one more than HELD at once."""

    async def test() -> None:
        budget = RequestMemory(MEBIBYTES_20)
        await Share.take(budget, [MEGAPIXEL])
        waiting = [asyncio.create_task(Share.take(budget, [MEGAPIXEL])) for _ in range(memory.HELD)]
        await settled()
        with pytest.raises(BusyError):
            await Share.take(budget, [MEGAPIXEL])
        assert not any(task.done() for task in waiting)
        budget.free_slots()
        await settled()
        refused = [task for task in waiting if task.done()]
        assert refused == waiting[memory.QUEUED :]
        assert {type(task.exception()) for task in refused} == {BusyError}
        for task in waiting:
            task.cancel()

    run(test)


@pytest.mark.parametrize("turn_has_come", [False, True])
def test_a_request_that_leaves_the_queue_gives_its_turn_to_the_next(turn_has_come: bool) -> None:
    async def test() -> None:
        budget = RequestMemory(MEBIBYTES_20)
        share = await Share.take(budget, [MEGAPIXEL])
        leaves = asyncio.create_task(Share.take(budget, [MEGAPIXEL]))
        stays = asyncio.create_task(Share.take(budget, [MEGAPIXEL]))
        await settled()
        if turn_has_come:
            share.close()
            leaves.cancel()
        else:
            leaves.cancel()
            await settled()
            share.close()
        (await stays).close()
        assert budget.taken == 0
        with pytest.raises(asyncio.CancelledError):
            await leaves

    run(test)


def test_a_share_lasts_as_long_as_its_images() -> None:
    async def test() -> None:
        budget = RequestMemory(1 << 30)
        cost = ImageCost(downloaded=0, pixels=1 << 20, kept=1000)
        with ThreadPoolExecutor(1) as threads:
            share = await Share.take(budget, [cost])
            image = await share.run(threads, lambda: SimpleNamespace(media=Image.new("L", (9, 9))))
            await settled()
            assert budget.taken == cost_of([cost])[0]
            del image
            while budget.taken != 2 * 1000:  # what the engine keeps, until the request ends
                gc.collect()  # the thread that decoded it may have it for another moment
                await asyncio.sleep(0.01)
            share.close()
            assert budget.taken == 0

            share = await Share.take(budget, [cost])
            image = await share.run(threads, lambda: SimpleNamespace(media=Image.new("L", (9, 9))))
            share.close()  # the client left; its image is still somewhere
            await settled()
            assert budget.taken == cost_of([cost])[0]
            del image
            while budget.taken:
                gc.collect()
                await asyncio.sleep(0.01)

    run(test)


@pytest.mark.parametrize("failed", [True, False])
def test_images_that_stay_referred_to_are_freed(
    failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_memory, "DISCARD_SECONDS", 0.01)

    async def test() -> None:
        budget = RequestMemory(1 << 30)
        with ThreadPoolExecutor(1) as threads:
            share = await Share.take(budget, [MEGAPIXEL])
            image = await share.run(threads, lambda: SimpleNamespace(media=Image.new("L", (9, 9))))
            await settled()
            share.close(failed)
            await asyncio.sleep(0 if failed else 0.1)
            await settled()
            assert budget.taken == 0
            with pytest.raises(ValueError, match="closed image"):
                image.media.tobytes()

    run(test)


@pytest.mark.parametrize("ends_with", ["an image", "an error"])
def test_a_share_lasts_as_long_as_a_decoder_runs(ends_with: str) -> None:
    async def test() -> None:
        budget = RequestMemory(1 << 30)
        started, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def decode() -> Any:
            loop.call_soon_threadsafe(started.set)
            go.wait(10)
            if ends_with == "an error":
                raise OSError
            return SimpleNamespace(media=Image.new("L", (9, 9)))

        with ThreadPoolExecutor(1) as threads:
            share = await Share.take(budget, [MEGAPIXEL])
            task = asyncio.create_task(share.run(threads, decode))
            queued = await Share.take(budget, [MEGAPIXEL])
            never = asyncio.create_task(queued.run(threads, decode))
            await started.wait()
            task.cancel()
            never.cancel()
            await settled()
            share.close()
            queued.close()
            await settled()
            assert budget.taken == MEBIBYTES_20  # the one that runs
            go.set()
        gc.collect()
        await settled()
        assert budget.taken == 0

    run(test)

import asyncio
import contextlib
import gc
import weakref

import pytest
from predict.asgi import Message
from predict.images.batch import ImageBatch, current_batch, image_batch
from predict.images.memory import ImageCost, Share, cost_of
from predict.images.urls import ImageError
from predict.memory import RequestMemory

from tests.support.loops import run

COST = ImageCost(downloaded=1, pixels=100, kept=10)


async def nothing() -> Message:
    raise AssertionError


def test_images_are_numbered_within_their_request() -> None:
    with image_batch(RequestMemory(None)) as batch:
        assert current_batch() is batch
        with batch.image() as first, batch.image() as second:
            assert (first, second) == (1, 2)
        with batch.image() as again:  # the same request's images, loaded once more
            assert again == 1


def test_a_request_takes_one_share_once_the_sizes_of_all_images_are_known() -> None:
    async def test() -> None:
        memory = RequestMemory(1 << 30)
        may_go = asyncio.Event()

        async def image(late: bool) -> None:
            with batch.image():
                await asyncio.sleep(0)
                if late:
                    await may_go.wait()
                async with batch.share(COST):
                    pass

        with image_batch(memory) as batch:
            images = [asyncio.create_task(image(late)) for late in (False, False, True)]
            for _ in range(5):
                await asyncio.sleep(0)
            assert memory.taken == 0
            may_go.set()
            await asyncio.gather(*images)
            await image(False)  # a second reading, as /tokenize has before the answer
            assert len(batch.shares) == 1
        assert memory.taken == 0

    run(test)


def test_the_share_of_a_request_is_for_all_of_its_answers() -> None:
    async def test() -> None:
        memory = RequestMemory(1 << 30)
        with image_batch(memory) as batch:
            batch.answers = 5
            with batch.image():
                async with batch.share(COST):
                    assert memory.taken == cost_of([COST], 5)[0]

    run(test)


def test_waiting_for_a_share_takes_nothing_of_the_time_to_fetch_images_again() -> None:
    """A request that is read twice fetches its images twice."""

    async def test() -> None:
        memory = RequestMemory(cost_of([COST])[0])
        other = await Share.take(memory, [COST])
        with image_batch(memory) as batch:
            ends = batch.ends(10)

            async def image() -> None:
                with batch.image():
                    async with batch.share(COST):
                        pass

            first = asyncio.create_task(image())
            await asyncio.sleep(0.05)
            other.close()
            await first
            waited = batch.ends(10) - ends
            await image()  # at once
            assert 0.04 < waited <= batch.ends(10) - ends < waited + 0.05

    run(test)


def test_where_one_image_fails_no_other_takes_memory() -> None:
    async def test() -> None:
        memory = RequestMemory(1 << 30)

        async def image(bad: bool) -> None:
            with batch.image():
                await asyncio.sleep(0)
                if bad:
                    raise OSError("the reason")
                async with batch.share(COST):
                    pass

        with image_batch(memory) as batch:
            results = await asyncio.gather(
                *map(image, (False, True, False)), return_exceptions=True
            )
            assert [str(result) for result in results] == ["the reason"] * 3
            assert memory.taken == 0

    run(test)


def test_where_there_is_no_room_the_images_of_a_request_wait_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And raise one error, whose traceback is cleared at the end."""
    monkeypatch.setattr("predict.memory.WAIT_SECONDS", 0.01)

    async def test() -> None:
        memory = RequestMemory(cost_of([COST])[0])
        await Share.take(memory, [COST])

        async def image(batch: ImageBatch) -> None:
            with batch.image():
                await asyncio.sleep(0)
                async with batch.share(COST):
                    pass

        with image_batch(memory) as batch:
            errors = await asyncio.gather(*map(image, [batch] * 5), return_exceptions=True)
            assert set(errors) == {batch.failure}

    run(test)


@pytest.mark.parametrize("ended_by", [asyncio.CancelledError, OSError, TimeoutError])
def test_a_share_is_given_back_however_a_request_ends(ended_by: type[BaseException]) -> None:
    async def test() -> None:
        memory = RequestMemory(1 << 30)

        async def request() -> None:
            with image_batch(memory) as batch:
                with batch.image():
                    async with batch.share(COST):
                        pass
                assert memory.taken == cost_of([COST])[0]
                await batch.download(100)
                raise ended_by

        with pytest.raises(ended_by):
            await request()
        assert memory.taken == 0

    run(test)


def test_a_body_is_incoming_until_the_request_has_a_share_or_needs_none() -> None:
    async def test() -> None:
        memory = RequestMemory(1 << 30)
        for images in (True, False):
            with image_batch(memory) as batch:
                async with batch.body.arriving(nothing, 1 << 20):
                    pass
                assert (memory.incoming.taken, memory.shares.taken) == (batch.body.size, 0)
                if images:
                    with batch.image():
                        async with batch.share(COST):
                            pass
                    assert memory.shares.taken == batch.body.size + cost_of([COST])[0]
                else:
                    batch.body.settle()
                assert memory.incoming.taken == 0
            assert memory.taken == 0

    run(test)


def test_the_error_of_a_refused_image_keeps_nothing_of_the_request() -> None:
    """It refers to its frames and they to it, until the garbage collector comes by, with the body
    in them."""

    class Body:
        pass

    seen: list[weakref.ref[Body]] = []

    async def load(batch: ImageBatch, body: Body) -> None:
        try:
            raise OSError
        except OSError as error:
            kept = error  # in a frame of its own traceback
            with batch.image():
                raise ImageError("refused") from kept

    async def request() -> None:
        body = Body()
        seen.append(weakref.ref(body))
        with image_batch(RequestMemory(None)) as batch, contextlib.suppress(ImageError):
            await load(batch, body)

    gc.disable()
    try:
        run(request)
        assert seen[0]() is None
    finally:
        gc.enable()

"""Many clients with the largest images that the limits allow: the memory of all has a bound."""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image
from predict.settings import DEFAULT_LIMITS

from local.processes import tail
from local.truss import URL
from tests.support import faults
from tests.support.container import Running
from tests.support.image_host import bomb, data_url, numbered
from tests.support.images import ask, part
from tests.support.resilience import Report

CLIENTS = 32
SECONDS = 10
SIDE = 4096  # 4096 x 4096 pixels are the most an image may have, and five the most of a request
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]

pytestmark = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """Bytes of the container's memory while the block runs; the largest at last."""
    seen, done = [faults.memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(faults.memory())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        done.set()
        watching.join()


def flood(seconds: float) -> tuple[list[httpx.Response], list[float]]:
    """Answers to clients that ask with images no cache knows, and the seconds of text requests
    beside them."""
    image, end = bomb(SIDE, SIDE), time.monotonic() + seconds
    numbers = iter(range(1 << 30))
    answers: list[httpx.Response] = []
    neighbours: list[float] = []

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            urls = [data_url(numbered(image, next(numbers))) for _ in range(5)]
            content: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
            answers.append(await http.post(faults.CHAT, json=body))

    async def neighbour(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            response = await http.post(faults.CHAT, json={"messages": QUESTION, "max_tokens": 1})
            assert response.status_code == 200
            neighbours.append(time.monotonic() - started)
            await asyncio.sleep(0.2)

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=URL, timeout=300, limits=limits, trust_env=False
        ) as http:
            await asyncio.gather(neighbour(http), *(client(http) for _ in range(CLIENTS)))

    asyncio.run(run())
    return answers, neighbours


def test_the_memory_of_all_images_has_a_bound(container: Running, resilience: Report) -> None:
    limit = DEFAULT_LIMITS["image_memory_bytes"]
    assert limit is not None
    ask(container, part("red"))
    before = faults.memory()
    with peak_of_memory() as seen:
        answers, neighbours = flood(SECONDS)
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}, tail(container.log)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {503}
    grown, kept = max(seen) - before, faults.memory() - before
    print(grown / 1e6, kept / 1e6, statistics.median(neighbours), max(neighbours), len(answers))
    assert grown < 1.1 * limit
    assert kept < 0.15 * before
    assert Image.MAX_IMAGE_PIXELS  # the decoder's own limit is left on
    resilience.row(
        "Bad images",
        f"{CLIENTS} clients for {SECONDS} s, each with five different images of {SIDE} x {SIDE} "
        "pixels at a time",
        f"memory {grown / 2**30:+.1f} GiB at most, of {limit / 2**30:.1f} GiB allowed, "
        f"{kept / 2**20:+.0f} MiB afterwards; {len(answers) - len(refused)} answered, "
        f"{len(refused)} refused with 503",
    )

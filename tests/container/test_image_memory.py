"""Many clients with the largest images that the limits allow: the memory of all has a bound."""

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image
from predict.settings import DEFAULT_LIMITS

from local.processes import tail
from local.truss import URL
from tests.support import load
from tests.support.container import Running
from tests.support.image_host import bomb, data_url, numbered, picture
from tests.support.images import ask, part
from tests.support.resilience import Report

CLIENTS = 32
SECONDS, LONG_SECONDS = 10, 120
ALONE_SECONDS = 5.0
MEDIAN_TIMES = 3  # … of what one such image takes the server alone: see image_seconds
SIDE = 4096  # 4096 x 4096 pixels are the most an image may have, and five the most of a request
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]

pytestmark = [
    pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True),
    pytest.mark.undisturbed,
]


@contextmanager
def peak_of_memory() -> Iterator[list[int]]:
    """Bytes of the container's memory while the block runs; the largest at last."""
    seen, done = [load.memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            seen.append(load.memory())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        done.set()
        watching.join()


def flood(clients: int, seconds: float) -> tuple[list[httpx.Response], list[float]]:
    """Answers to clients that ask with images no cache knows, and the seconds until the first token
    of text requests beside them."""
    image, end = bomb(SIDE, SIDE), time.monotonic() + seconds
    numbers = iter(range(1 << 30))
    answers: list[httpx.Response] = []
    neighbours: list[float] = []

    async def client(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            urls = [data_url(numbered(image, next(numbers))) for _ in range(5)]
            content: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
            answers.append(await http.post(load.CHAT, json=body))

    async def neighbour(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            response = await http.post(load.CHAT, json={"messages": QUESTION, "max_tokens": 1})
            assert response.status_code == 200
            neighbours.append(time.monotonic() - started)
            await asyncio.sleep(0.2)

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=URL, timeout=300, limits=limits, trust_env=False
        ) as http:
            await asyncio.gather(neighbour(http), *(client(http) for _ in range(clients)))

    asyncio.run(run())
    return answers, neighbours


def image_seconds(container: Running) -> float:
    """What one image of the largest size takes, alone. On a CPU the engine is at its encoder for
    most of it, in one step, for which a neighbour waits whatever else is bounded."""
    found = []
    for number in range(3):
        url = data_url(numbered(bomb(SIDE, SIDE), 10**7 + number))
        content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
        started = time.monotonic()
        assert container.http.post(load.CHAT, json=body).status_code == 200
        found.append(time.monotonic() - started)
    return statistics.median(found)


def test_the_memory_of_all_images_has_a_bound(
    container: Running, resilience: Report, request: pytest.FixtureRequest
) -> None:
    limit = DEFAULT_LIMITS["image_memory_bytes"]
    assert limit is not None
    quiet = request.config.getoption("--resilience")
    seconds = LONG_SECONDS if quiet else SECONDS
    ask(container, part("red"))
    one = image_seconds(container)
    _, alone = flood(0, ALONE_SECONDS)
    before = load.memory()
    with peak_of_memory() as seen:
        answers, neighbours = flood(CLIENTS, seconds)
    load.wait(lambda: load.running() + load.waiting() == 0)
    statuses = {answer.status_code for answer in answers}
    # that some are refused depends on the machine; tests/unit/test_images_memory.py provokes it
    assert statuses in ({200}, {200, 503}), tail(container.log)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] for answer in refused)
    assert all(answer.json()["error"]["code"] == 503 for answer in refused)
    grown, kept = max(seen) - before, load.memory() - before
    own, median = statistics.median(alone), statistics.median(neighbours)
    print(f"{grown / 1e6:.0f} MB, then {kept / 1e6:.0f} of {before / 1e6:.0f}; {len(answers)}")
    print(f"neighbours: {median:.3f} s, longest {max(neighbours):.3f} s, alone {own:.3f} s")
    print(f"one image alone: {one:.3f} s")
    assert grown < 1.1 * limit
    assert kept < 0.15 * before
    if quiet:
        assert median < MEDIAN_TIMES * max(own, one)
    assert Image.MAX_IMAGE_PIXELS  # the decoder's own limit is left on
    resilience.row(
        "Bad images",
        f"{CLIENTS} clients for {seconds} s, each with five different images of {SIDE} x {SIDE} "
        "pixels at a time",
        f"memory {grown / 2**30:+.1f} GiB at most, of {limit / 2**30:.1f} GiB allowed, "
        f"{kept / 2**20:+.0f} MiB afterwards; {len(answers) - len(refused)} answered, "
        f"{len(refused)} refused with 503; the TTFT of a neighbour with text, {own * 1000:.0f} ms "
        f"alone: median {median * 1000:.0f} ms, longest {max(neighbours) * 1000:.0f} ms, where one "
        f"image alone takes {one:.1f} s, most of it in the engine",
    )


def test_requests_that_fail_at_their_last_image_keep_no_memory(container: Running) -> None:
    """Were their shares kept, the fourth would wait in vain."""
    good, broken = data_url(bomb(SIDE, SIDE)), data_url(picture(size=(1000, 1000))[:-100])

    def ask_with(*urls: str) -> httpx.Response:
        content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
        return container.http.post(load.CHAT, json=body)

    for _ in range(6):
        response = ask_with(good, good, good, good, broken)
        assert response.status_code == 400
        assert "image 5 of the request: it is not an image" in response.text


def test_500_different_images_leave_no_more_than_the_cache_keeps(
    container: Running, resilience: Report
) -> None:
    """What it keeps of each is the encoder's input: three values of 16 bits a pixel."""
    side, count = 128, 500
    image = bomb(side, side)

    def ask_for(numbers: range) -> None:
        for number in numbers:
            part = {
                "type": "image_url",
                "image_url": {"url": data_url(numbered(image, 10**6 + number))},
            }
            body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
            assert container.http.post(load.CHAT, json=body).status_code == 200

    ask_for(range(count, count + 20))
    before = load.memory()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask_for, [range(start, count, 8) for start in range(8)]))
    grown = load.memory() - before
    assert grown < 2 * count * side**2 * 6 + (64 << 20)
    resilience.row("Load", f"{count} different images", f"memory {grown / 2**20:+.0f} MiB")

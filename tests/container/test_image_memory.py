"""Many clients with as many and as large images as the limits allow: total memory has a bound, and
so has the wait of a neighbour with text."""

import base64
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from local.processes import tail
from tests.support import faults, load
from tests.support.container import Running, at_once
from tests.support.image_host import ImageHost, bomb, data_url, numbered, picture
from tests.support.images import ask, part
from tests.support.neighbours import Body, Pieces, attacked, neighbour
from tests.support.resilience import Report

CLIENTS = 32
SECONDS, LONG_SECONDS = 10, 120
ALONE_SECONDS = 5.0
# … times the time of one image alone on the server: text waits for one step, which has only a part
# of a large image, and for the cores, not for the tens of earlier images.
MEDIAN_TIMES, LONGEST_TIMES = 1, 2
SIDE = 4096  # maximum size of an image: 4096 x 4096 pixels; a request may have five
SMALL = 64

pytestmark = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)


Taken = dict[str, int]  # bytes, by process


@contextmanager
def peak_of_memory() -> Iterator[tuple[list[Taken], list[int]]]:
    """The container's memory while the block runs, of its processes and in /dev/shm: at the start,
    and at each new peak."""
    seen, shared, done = [load.memory_of_processes()], [load.shared_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            now = load.memory_of_processes()
            if sum(now.values()) > sum(seen[-1].values()):
                seen.append(now)
            shared.append(max(shared[-1], load.shared_memory()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen, shared
    finally:
        done.set()
        watching.join()


def told(taken: Taken) -> str:
    """In MB, without the processes that have none."""
    return ", ".join(f"{name}: {size // 10**6}" for name, size in taken.items() if size > 10**7)


def with_images(urls: list[str], **more: Any) -> Body:
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 1, **more}


def flood(side: int) -> Callable[[str], Body]:
    """Makes requests with five images each, of the given size, that are in no cache."""
    image = bomb(side, side)

    def make(mark: str) -> Body:
        number = int.from_bytes(mark.encode()) * 5
        urls = [data_url(numbered(image, number + i)) for i in range(5)]
        return with_images(urls, max_tokens=4)

    return make


def flood_of_bytes(side: int) -> Callable[[str], Pieces]:
    """The same in bodies of 42 MB: each picture is followed by data that decoders skip."""
    start = base64.b64encode(b"".join([image := bomb(side, side), bytes(-len(image) % 3)]))
    filling = b"A" * (8 << 20)

    def make(mark: str) -> Pieces:
        number, content = int.from_bytes(mark.encode()) * 5, []
        for i in range(5):
            end = base64.b64encode(b"%048d" % (number + i))
            opening = b'{"type": "image_url", "image_url": {"url": "data:image/png;base64,'
            content += [b", " if i else b"", opening, start, filling, end, b'"}}']
        return [b'{"max_tokens": 4, "messages": [{"role": "user", "content": [', *content, b"]}]}"]

    return make


def steady_memory() -> int:
    """Bytes of the container's memory once the process that tries constraints has started. It takes
    0.3 GB, at a time unrelated to images."""

    def grows() -> bool:
        before = load.memory()
        time.sleep(2)
        return load.memory() > before + (1 << 20)

    load.wait(lambda: not grows())
    return load.memory()


def image_seconds(container: Running) -> float:
    """The time of one image of the largest size, alone."""
    found = []
    for number in range(3):
        body = with_images([data_url(numbered(bomb(SIDE, SIDE), 10**7 + number))])
        started = time.monotonic()
        assert container.http.post(load.CHAT, json=body).status_code == 200
        found.append(time.monotonic() - started)
    return statistics.median(found)


@pytest.mark.busy  # a neighbour's wait is a sixth of its bound
@pytest.mark.parametrize(
    ("make", "side", "what"),
    [
        (flood, SIDE, ""),
        (flood, SMALL, ""),
        pytest.param(  # occupies the cores for minutes
            *(flood_of_bytes, SIDE, ", in bodies of 42 MB"), marks=pytest.mark.only_resilience
        ),
    ],
    ids=["large", "small", "bytes"],
)
def test_the_memory_of_all_images_and_the_wait_of_text_beside_them_have_bounds(
    container: Running,
    resilience: Report,
    request: pytest.FixtureRequest,
    make: Callable[[int], Callable[[str], Body | Pieces]],
    side: int,
    what: str,
) -> None:
    limit = (container.card.serving.memory << 30) // 8  # including vLLM's caches
    seconds = LONG_SECONDS if request.config.getoption("--resilience") else SECONDS
    ask(container, part("red"))
    one = image_seconds(container)
    neighbour(1)
    alone = neighbour(ALONE_SECONDS)
    before = steady_memory()
    peak = peak_of_memory()
    with peak as (seen, shared), attacked(CLIENTS, make(side), leave=True) as statuses:
        began = load.core_seconds(engine=False), load.core_seconds(engine=True)
        waits = neighbour(seconds)
        server, engine = load.core_seconds(False) - began[0], load.core_seconds(True) - began[1]
    load.wait(lambda: load.under_way() == 0 and taken() == 0)
    ask(container, part("blue"))
    # whether any are rejected depends on the machine; tests/unit/test_images_memory.py provokes it
    assert set(statuses) in ({200}, {200, 503}), tail(container.log)
    after = load.memory_of_processes()
    grown, kept = sum(seen[-1].values()) - before, sum(after.values()) - before
    own, median, longest = statistics.median(alone), statistics.median(waits), max(waits)
    print(f"{grown / 1e6:.0f} MB, then {kept / 1e6:.0f} of {before / 1e6:.0f}; {Counter(statuses)}")
    print(f"in /dev/shm {shared[0] / 1e6:.0f} MB at first, {shared[-1] / 1e6:.0f} at most")
    print(f"at first {told(seen[0])}\nat most {told(seen[-1])}\nafterwards {told(after)}")
    print(f"neighbours: {median:.3f} s, longest {longest:.3f} s, alone {own:.3f} s")
    cores = f"nginx and the API server take {server / seconds:.1f} cores, {engine / seconds:.1f}"
    print(f"one image alone: {one:.3f} s; {cores} the engine")
    assert grown < 1.1 * limit
    assert kept < 0.15 * before
    if make is flood:  # moving bodies of 42 MB costs the cores more than decoding their images
        assert median < MEDIAN_TIMES * one
        assert longest < LONGEST_TIMES * one
    resilience.row(
        "Bad images",
        f"{CLIENTS} clients for {seconds} s, each with five different images of {side} x {side} "
        f"pixels at a time{what}; then they leave",
        f"memory {grown / 2**30:+.1f} GiB at most, of {limit / 2**30:.1f} GiB allowed, "
        f"{kept / 2**20:+.0f} MiB afterwards; bodies of at most {shared[-1] / 2**30:.1f} GiB in "
        f"/dev/shm, which are not counted; {statuses.count(200)} answered, "
        f"{statuses.count(503)} refused with 503; the TTFT of a neighbour with text, "
        f"{own * 1000:.0f} ms alone: median {median * 1000:.0f} ms, longest "
        f"{longest * 1000:.0f} ms, where one image of 4096 x 4096 alone takes {one:.1f} s; "
        f"meanwhile {cores} the engine",
    )


GOOD, LARGE = data_url(bomb(512, 512)), data_url(bomb(SIDE, SIDE))
BROKEN = data_url(picture(size=(1000, 1000))[:-100])

# How a request with images ends: their URLs, or paths on the test's host; its other fields; and the
# status of the answer.
WAYS_OUT: dict[str, tuple[list[str], Body, int]] = {
    "the first image is broken": ([BROKEN, LARGE, LARGE], {}, 400),
    "the last image is broken": ([LARGE, LARGE, BROKEN], {}, 400),
    "an image has too many pixels": ([GOOD, data_url(bomb(SIDE, SIDE + 1))], {}, 400),
    "a host has no such image": ([GOOD, "/status/404"], {}, 400),
    "a host breaks off": ([GOOD, "/short"], {}, 400),
    "a host is silent": ([GOOD, "/stall"], {}, 400),
    "too many tokens are asked for": ([GOOD, GOOD], {"max_tokens": 10**6}, 400),
    "several answers": ([GOOD], {"n": 3, "temperature": 1}, 200),
    "a stream": ([GOOD, GOOD], {"stream": True}, 200),
}


def taken() -> float:
    """Bytes that bodies and images of requests occupy now."""
    return load.metrics()["predict:request_memory_bytes"]


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_request_with_images_keeps_no_memory_however_it_ends(
    container: Running, image_host: ImageHost, name: str
) -> None:
    urls, more, status = WAYS_OUT[name]
    body = with_images([image_host.url(u) if u[0] == "/" else u for u in urls], **more)
    response = container.http.post(load.CHAT, json=body)
    assert response.status_code == status, response.text
    load.wait(lambda: taken() == 0)


def asked_at(path: str, image: str) -> Body:
    """A request about an image for a route, in the route's own format."""
    if path == "/v1/responses":
        part = {"type": "input_image", "image_url": image, "detail": "auto"}
        return {"input": [{"role": "user", "content": [part]}], "max_output_tokens": 4}
    if path.startswith("/v1/messages"):
        source = {"type": "base64", "media_type": "image/png", "data": image.partition(",")[2]}
        messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        body = {"model": "pixtral-12b", "messages": messages}
        return body if path.endswith("count_tokens") else {**body, "max_tokens": 4}
    body = with_images([image])
    del body["max_tokens"]
    return {**body, "max_length": 4000} if path == "/predict" else body  # counts the prompt first


@pytest.mark.parametrize(
    "path",
    ["/predict", "/tokenize", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"],
)
@pytest.mark.parametrize(("image", "status"), [(GOOD, 200), (BROKEN, 400)], ids=["good", "broken"])
def test_each_route_gives_back_the_memory_of_an_image(
    container: Running, path: str, image: str, status: int
) -> None:
    response = container.http.post(path, json=asked_at(path, image))
    assert response.status_code == status, response.text
    load.wait(lambda: taken() == 0)


def test_clients_that_leave_keep_no_memory(container: Running) -> None:
    """While their images are decoded, or wait in the queue: there is room for one such request."""
    fresh = flood(SIDE)
    with ExitStack() as connections:
        for number in range(5):
            connections.enter_context(faults.asked(fresh(f"leave{number}")))
        load.wait(lambda: taken() > 0)
    load.wait(lambda: taken() == 0)


def test_500_different_images_leave_no_more_than_the_cache_keeps(
    container: Running, resilience: Report
) -> None:
    """It keeps the encoder's input of each: three 16-bit values per pixel."""
    side, count = 128, 500
    image = bomb(side, side)

    def ask_for(numbers: range) -> None:
        for number in numbers:
            body = with_images([data_url(numbered(image, 10**6 + number))])
            assert container.http.post(load.CHAT, json=body).status_code == 200

    ask_for(range(count, count + 20))
    before = load.memory()
    at_once(ask_for, [range(start, count, 8) for start in range(8)])
    grown = load.memory() - before
    assert grown < 2 * count * side**2 * 6 + (64 << 20)
    resilience.row("Load", f"{count} different images", f"memory {grown / 2**20:+.0f} MiB")

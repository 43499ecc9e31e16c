"""More clients than slots, of every kind, for as long as --soak says: nothing grows or leaks."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from deploy.config import most_requests
from deploy.paths import ROOT
from local.truss import URL
from tests.support import faults, load
from tests.support.bare import bare_server
from tests.support.container import Running
from tests.support.resilience import Report
from tests.support.soak import MARK, sent

MODEL = "pixtral-12b"  # accepts all kinds of the clients' requests
MINUTE = 60
# Of all but the engine; and of all: the engine's KV cache, 1 GiB, gets its memory as it is used,
# which takes longer than a short soak.
GROWTH, SHORT_GROWTH = 1.05, 1.1
# p99 of rejections, negligible to users; or that many times a bare server's: through nginx a
# request has four hops, not two, each may wait for a core, and the engine has one of two.
REJECTION_SECONDS, REJECTION_TIMES = 0.05, 2
FULL = 0.25  # least share of rejections caused by the full queue: 40 to 60 % were
EXTRA = 20  # clients beyond the queue, so that it is full if none of them does other work

pytestmark = [
    pytest.mark.parametrize("container", [MODEL], indirect=True),
    pytest.mark.busy,
]


@pytest.fixture(scope="module")
def seconds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--soak"))


@contextmanager
def sampling(samples: list[tuple[float, int, int]]) -> Iterator[None]:
    """Records once a second the seconds since the start, and bytes of memory: of the container, and
    of all but the engine."""
    done, started = threading.Event(), time.monotonic()

    def sample() -> None:
        while not done.wait(1):
            samples.append((time.monotonic() - started, *load.memories()))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def rejections(count: int, bare: str) -> list[tuple[int, float, float]]:
    """Statuses and seconds of `count` requests that are rejected as invalid, or because the queue
    is full, each with the seconds of a request to a server that does nothing."""
    found = []
    with httpx.Client(timeout=60, trust_env=False) as client:
        for _ in range(count):
            started = time.monotonic()
            response = client.post(f"{URL}{load.CHAT}", json={"messages": 5, "user": MARK})
            between = time.monotonic()
            assert response.status_code in (400, 503)
            assert client.post(bare, json={"messages": 5, "user": MARK}).status_code == 404
            after = time.monotonic()
            found.append((response.status_code, between - started, after - between))
            time.sleep(0.05)
    return found


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def in_ms(values: list[float]) -> str:
    return f"median {statistics.median(values) * 1000:.0f} ms, p99 {p99(values) * 1000:.0f} ms"


def memory_at(
    samples: list[tuple[float, int, int]], start: float, end: float
) -> tuple[float, float]:
    found = [sizes for at, *sizes in samples if start <= at < end]
    whole, beside = map(statistics.median, zip(*found, strict=True))
    return whole, beside


def test_a_soak(
    container: Running, seconds: int, resilience: Report, request: pytest.FixtureRequest
) -> None:
    most = most_requests(load.plan_of(MODEL))
    log_bytes = container.log.stat().st_size
    clients = subprocess.Popen(
        [sys.executable, "-m", "tests.support.soak", MODEL, str(seconds), str(most + EXTRA)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "packages")},
        stdout=subprocess.PIPE,
        text=True,
    )
    samples: list[tuple[float, int, int]] = []
    rejected: list[tuple[int, float, float]] = []
    try:
        with sampling(samples), bare_server() as bare:
            while clients.poll() is None and len(samples) < seconds:
                rejected += rejections(10, bare)
            output, _ = clients.communicate(timeout=3 * MINUTE)
    finally:
        clients.kill()
    seen = json.loads(output)
    load.wait(lambda: load.under_way() == 0)

    counts = seen["counts"]
    assert seen["wrong"] == []
    assert all(counts[kind].get("right", 0) for kind in counts), counts
    half = seconds / 2
    first = min(MINUTE, half)
    _, before = memory_at(samples, first - 10, first + 10)
    middle, _ = memory_at(samples, half - 10, half + 10)
    after, beside = memory_at(samples, seconds - 20, seconds)
    assert beside < GROWTH * before, f"{before / 1e6:.0f} MB, then {beside / 1e6:.0f} MB"
    most_grown = GROWTH if seconds >= 10 * MINUTE else SHORT_GROWTH
    assert after < most_grown * middle, f"{middle / 1e6:.0f} MB, then {after / 1e6:.0f} MB"
    with faults.crowd(MODEL, most):  # no slot leaked
        pass
    assert [outcome for outcome in load.streams(MODEL, 8) if not outcome.right] == []
    logged = container.log.read_bytes()[log_bytes:].decode(errors="replace")
    assert [text for text in sent(MODEL) if text in logged] == []
    waits = [seconds for _, seconds, _ in rejected]
    bare_seconds = [seconds for _, _, seconds in rejected]
    full = sum(status == 503 for status, _, _ in rejected) / len(rejected)
    print(f"all slots taken {full:.0%} of the time")
    print(f"rejected: p50 {statistics.median(waits):.4f} p99 {p99(waits):.4f}")
    print(f"bare: p50 {statistics.median(bare_seconds):.4f} p99 {p99(bare_seconds):.4f}")
    print(counts, before, beside, middle, after)
    if request.config.getoption("--resilience"):  # on a quiet machine
        assert p99(waits) < max(REJECTION_SECONDS, REJECTION_TIMES * p99(bare_seconds))
        assert full > FULL

    right = sum(count.get("right", 0) for count in counts.values())
    refused = sum(count.get("refused", 0) for count in counts.values())
    resilience.row(
        "A soak",
        f"{seconds} s of chats, slow readers, clients that leave, legacy requests, schemas, bad "
        f"input, tools and images, {most + EXTRA} and more at once, {most} admitted",
        f"{right} answered as they must be, {refused} refused with 503, none wrong; memory "
        f"beside the engine's {beside / before - 1:+.1%} since the first minute, all "
        f"{after / middle - 1:+.1%} since half of the time; all slots taken {full:.0%} of it; "
        f"rejections: {in_ms(waits)}; beside them a bare uvicorn's 404: {in_ms(bare_seconds)}; "
        "no slot leaked; no request quoted in the log",
    )

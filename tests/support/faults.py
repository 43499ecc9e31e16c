"""Faults: what is done to a container, and what is measured.

Promises: a scenario only acts and measures; the tests (tests/container/test_faults.py) say what
must hold.
"""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.config import PORT, most_requests
from local import processes
from local.truss import NGINX_PORT, READINESS, READY, URL
from tests.support import turns
from tests.support.load import (
    CHAT,
    ENDLESS,
    LIVENESS,
    Outcome,
    Server,
    ask,
    flowing,
    known,
    meanwhile,
    metrics,
    plan_of,
    status,
    streams,
    under_way,
    wait,
)

ENGINE, WORKER, API_SERVER = "the engine", "a tensor-parallel worker", "the API server"
NGINX, NGINX_WORKER = "nginx's master process", "nginx's worker processes"
ENDING_TOKENS = 150  # of a stream that outlives the signal of a stop and ends in its 15 s
STALL_SECONDS = 8  # for an engine to show progress, in the tests that make it hang
# Until nothing is left of a container that ends: up to 10 s, by supervisord's own clock.
END_SECONDS = 60
# Until the slot of a client that has disconnected is free: at most 0.3 s on a quiet machine; the
# 30,000 tokens of the answer would take minutes.
FREE_SECONDS = 10


def processes_of(who: str) -> list[int]:
    """The process ids of a part of the container, if any."""
    if who == API_SERVER:
        return processes.vllm_processes()
    title = {
        ENGINE: "VLLM::EngineCore",
        WORKER: "VLLM::Worker",
        NGINX: "nginx: master",
        NGINX_WORKER: "nginx: worker",
    }[who]
    inside = processes.container_processes()
    return [pid for pid, words in inside if words[0].startswith(title)]


def send(who: str, number: int) -> None:
    found = processes_of(who)
    assert found, f"there is no process of {who}"
    for pid in found:
        os.kill(pid, number)


@contextlib.contextmanager
def paused(pids: Sequence[int]) -> Iterator[None]:
    assert pids, "there is no such process"
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def engine_paused() -> contextlib.AbstractContextManager[None]:
    return paused(processes_of(ENGINE))


# A client that disconnects


def leave(model: str, **more: Any) -> float:
    """Sends a request, disconnects once the engine has it. Seconds until its slot is free."""
    busy = under_way()
    with asked({"messages": known(model)[0][0], "max_tokens": 30000, "ignore_eos": True, **more}):
        wait(lambda: under_way() > busy)
    return wait(lambda: under_way() <= busy)


def leave_during_download(model: str, image: str, **more: Any) -> float:
    """One request waits for this image, whose host must not answer, while others occupy all other
    slots; then its client disconnects. Seconds until another request is admitted."""
    part = {"type": "image_url", "image_url": {"url": image}}
    body = {"messages": [{"role": "user", "content": [part]}], **more}

    def full() -> bool:  # otherwise the status is 400
        return ask(f"{URL}{CHAT}", b"")[0] == 503

    with crowd(model, most_requests(plan_of(model)) - 1):
        with asked(body):
            wait(full)
        return wait(lambda: not full())


@contextlib.contextmanager
def asked(body: dict[str, Any], url: str = URL) -> Iterator[socket.socket]:
    """A request that was sent and whose answer is not read; disconnected at the end."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.socket() as connection:
        # small, so that the server soon notices unread data
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        yield connection


@contextlib.contextmanager
def crowd(model: str, count: int, n: int = 1, url: str = URL) -> Iterator[None]:
    """`count` requests, of `n` answers each, on which the engine works for the whole block: each
    has a slot, and no other request can get it."""
    body: dict[str, Any] = {"messages": known(model)[0][0], "max_tokens": 30000}
    body |= {"ignore_eos": True, "n": n, "temperature": 1}

    wait(lambda: under_way(url) == 0)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(asked(body, url))
        wait(lambda: under_way(url) == count * n)
        yield
    wait(lambda: under_way(url) == 0)


@contextlib.contextmanager
def unread_streams(model: str, count: int, tokens: int) -> Iterator[list[int]]:
    """`count` streams of large events whose clients read nothing, once the engine has finished
    them → for each, the bytes that the server could not send."""
    more = {"stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    body = {"messages": known(model)[0][0], "max_tokens": tokens, **more}
    made = metrics()["vllm:generation_tokens_total"]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(asked(body))
        wait(lambda: metrics()["vllm:generation_tokens_total"] >= made + count * tokens, 600)
        yield unsent()


def unsent(port: int = NGINX_PORT) -> list[int]:
    """Bytes that the peers of a server's connections have not taken; by default of nginx's
    connections with clients."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    sizes = [int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(f":{port:04X}")]
    return [size for size in sizes if size > 0]


@contextlib.contextmanager
def unread(model: str, full: bool = False) -> Iterator[None]:
    """A long stream of large events whose client stays connected and reads nothing. `full`: the
    block begins when all buffers in between are full, so that vLLM itself cannot send: 7 MB. For
    that the stream has 16 answers, whose tokens take a quarter of the time: its container has no
    limit `work`."""
    n = 16 if full else 1
    more = {"stream": True, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
    more |= {"n": n, "temperature": 1}
    with asked({"messages": known(model)[0][0], "max_tokens": 30000, **more}):
        wait(lambda: metrics()["vllm:num_requests_running"] == n)
        if full:
            wait(lambda: _stuck(PORT))
        yield


def _stuck(port: int) -> bool:
    """Whether a server's connections take nothing while the engine generates tokens."""

    def made() -> float:
        return metrics()["vllm:generation_tokens_total"]

    before, tokens = unsent(port), made()
    if before:
        wait(lambda: made() > tokens + 100)
    return before != [] and unsent(port) == before


# An engine that hangs


@dataclass(frozen=True)
class Hang:
    seen_after: float  # seconds until liveness failed
    readiness: int  # at that time
    well_after: float  # seconds until liveness recovered
    outcomes: Sequence[Outcome]  # of the streams during the hang


def hang_and_leave(model: str) -> float:
    """Pauses the engine until the hang is detected, with one client, which disconnects. Seconds
    until liveness recovers once the engine continues."""
    with engine_paused():
        with asked({"messages": known(model)[0][0], "max_tokens": 5}):
            wait(lambda: status(LIVENESS) == 503)
        time.sleep(1)
        assert status(LIVENESS) == 503
    return wait(lambda: status(LIVENESS) == 200)


def hang(model: str, count: int = 8, first: bool = False) -> Hang:
    """Pauses the engine until the hang is detected, under `count` streams or before the first."""
    if first:
        send(ENGINE, signal.SIGSTOP)
        asked = meanwhile(lambda: streams(model, count, max_tokens=500))
    else:
        asked = flowing(model, count, ignore_eos=True, max_tokens=500)
    with asked as found:
        with engine_paused():
            seen = wait(lambda: status(LIVENESS) == 503)
            readiness = status(READINESS)
        well = wait(lambda: status(LIVENESS) == 200)
    return Hang(seen, readiness, well, found)


def pause_one_worker(model: str, count: int) -> Hang:
    """Pauses one worker under `count` streams until the hang is detected."""
    with meanwhile(lambda: streams(model, count)) as found:
        wait(lambda: under_way() >= count // 2)
        with paused(processes_of(WORKER)[:1]):
            seen = wait(lambda: status(LIVENESS) == 503)
            readiness = status(READINESS)
        well = wait(lambda: status(LIVENESS) == 200)
    return Hang(seen, readiness, well, found)


# A process that is killed


@dataclass(frozen=True)
class Killed:
    ended_after: float  # seconds until nothing of the container was left
    outcomes: Sequence[Outcome]  # of the streams at that time
    exit_line: str


def exit_line(log: Path) -> str:
    """supervisord's log line about the start command's exit; empty if there is none."""
    lines = log.read_text(errors="replace").splitlines()
    ends = [line for line in lines if "model-server" in line and ("exit" in line or "SIG" in line)]
    return ends[-1] if ends else ""


def kill(started: Server, who: str, number: int = signal.SIGKILL) -> Killed:
    """Kills one part of the container, under four streams."""
    with flowing(started.model, 4, **ENDLESS) as outcomes:
        send(who, number)
        ended = wait(lambda: started.process.poll() is not None)
        ended += wait(lambda: processes.container_processes() == [])
    return Killed(ended, outcomes, exit_line(started.log))


def kill_nginx_worker(model: str) -> tuple[float, list[Outcome]]:
    """Kills nginx's workers → seconds until a request is answered, and the outcomes of the streams
    through them."""
    with flowing(model, 4, **ENDLESS) as outcomes:
        send(NGINX_WORKER, signal.SIGKILL)
        back = wait(lambda: streams(model, 1)[0].right)
    return back, outcomes


# A stop


@dataclass(frozen=True)
class Stopped:
    refused: Outcome  # a request sent after the signal
    liveness: int
    readiness: int
    ended_after: float  # seconds until nothing of the container was left
    outcomes: Sequence[Outcome]  # of the streams at that time
    exit_line: str


def drain(started: Server, tokens: int, count: int = 8) -> Stopped:
    """Stops vLLM alone, under `count` streams of `tokens` tokens. The engine is paused until the
    server has the signal: a fast one would finish before."""
    ending = flowing(started.model, count, ignore_eos=True, max_tokens=tokens)
    with ending as outcomes, engine_paused():
        asked = time.monotonic()
        send(API_SERVER, signal.SIGTERM)
        wait(lambda: status(READINESS) != 200)
        readiness, liveness = status(READINESS), status(LIVENESS)
        (refused,) = streams(started.model, 1)
    wait(lambda: started.process.poll() is not None and processes.container_processes() == [])
    seconds = time.monotonic() - asked
    return Stopped(refused, liveness, readiness, seconds, outcomes, exit_line(started.log))


@dataclass(frozen=True)
class ContainerStopped:
    refused: Outcome  # a request sent after the signal
    readiness: int  # at that time
    short: Sequence[Outcome]  # streams that have time to finish during a stop
    long: Sequence[Outcome]  # streams that would not end
    seconds: float  # until nothing of the container was left


def stop(started: Server) -> ContainerStopped:
    """Stops the container, under four streams of `ENDING_TOKENS` and two endless ones. As in
    `drain`, the engine is paused until the server has the signal."""
    model, url = started.model, started.url
    with flowing(model, 2, url, **ENDLESS) as long:
        short = flowing(model, 4, url, ignore_eos=True, max_tokens=ENDING_TOKENS)
        with short as ending, engine_paused():
            assert under_way(url) == 6, "the streams ended before the stop"
            asked = time.monotonic()
            started.process.send_signal(signal.SIGTERM)
            wait(lambda: status(f"{url}{READY}") != 200)
            readiness = status(f"{url}{READY}")
            (refused,) = streams(model, 1, url)
        turns.share()  # the endless ones are cut off some 15 s later
    wait(lambda: started.process.poll() is not None and processes.container_processes() == [])
    return ContainerStopped(refused, readiness, ending, long, time.monotonic() - asked)

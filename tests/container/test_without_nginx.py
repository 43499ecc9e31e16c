"""Truss's build without nginx and supervisord, which the platform may choose: the start command of
the same config is PID 1 and takes the platform's requests itself."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from predict.admission import ALIASES, HEADER_BYTES, RETRY_SECONDS, ROUTES
from predict.memory import READ_SECONDS

from deploy.config import most_requests
from local.processes import container_processes, launch, vllm_processes
from local.truss import STOP_SECONDS
from tests.support import faults, load, stops
from tests.support.container import gone, leftovers, wait_for
from tests.support.load import Server
from tests.support.resilience import Report

MODEL = "mistral-7b"

pytestmark = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


@pytest.fixture(scope="module")
def server(container: None) -> Iterator[Server]:
    with load.server(MODEL, nginx=False) as started:
        yield started
    assert gone(), leftovers()


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


def test_vllm_is_pid_1_and_nothing_else_is_there(server: Server) -> None:
    (vllm,) = vllm_processes()
    status = Path(f"/proc/{vllm}/status").read_text()
    assert re.search(r"^NSpid:.*\t1$", status, re.MULTILINE)
    names = [words[0] for _, words in container_processes()]
    assert not [name for name in names if "nginx" in name or "supervisord" in name]
    root = Path(f"/proc/{vllm}/root")
    assert not (root / "etc" / "nginx" / "conf.d").exists()
    assert not (root / "docker_server").exists()


def test_what_nginx_rewrites_is_answered_by_the_server(http: httpx.Client) -> None:
    question = {"messages": [{"role": "user", "content": "What is the Mistral wind?"}]}
    for path, meant in ALIASES.items():
        for route in (path, meant):
            methods = ROUTES[meant]
            answer = http.get(route) if "GET" in methods else http.post(route, json=question)
            assert answer.status_code == 200, route
    assert http.post("/predict", json={"prompt": "Hello"}).json()["output"]
    for path in ("/docs", "/v1/websocket", "/invocations", "/v1/models/other"):
        assert http.get(path).status_code == 404
    assert http.put("/").status_code == 405


def test_a_body_or_headers_over_the_limit_are_refused(http: httpx.Client) -> None:
    body = b" " * (2 * 2**20)
    for content in (body, iter([body])):
        answer = http.post("/predict", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, 413)
    answer = http.get("/v1/models", headers={"X-Long": "x" * HEADER_BYTES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, 431)
    assert http.get("/v1/models", headers={"X-Long": "x" * (HEADER_BYTES // 2)}).is_success


def test_what_is_too_much_at_once_is_refused(server: Server) -> None:
    most = most_requests(load.plan_of(MODEL))
    with faults.crowd(MODEL, most, url=server.url):
        refused = load.streams(MODEL, 8, server.url)
    assert {(it.status, it.retry_after) for it in refused} == {(503, str(RETRY_SECONDS))}
    assert all(it.right for it in load.streams(MODEL, 8, server.url))


def test_bodies_that_do_not_come_hold_no_slot_and_no_memory_for_long(
    server: Server, http: httpx.Client
) -> None:
    """As many as there are slots, some with a size that makes others wait."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as connections:

        def hold(length: int) -> None:
            connection = connections.enter_context(socket.create_connection(address))
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode() + b'{"prompt": "')

        for number in range(most_requests(load.plan_of(MODEL))):
            hold(1000 if number % 2 else 900_000)

        def asked() -> int:
            return http.post("/predict", json={"prompt": "Hello " * 50_000}).status_code

        def full() -> bool:
            hold(1000)  # replaces one rejected because of a request of the previous test
            return asked() == 503

        load.wait(full)
        load.wait(lambda: asked() == 400, READ_SECONDS / 2)  # longer than the model's context


@pytest.mark.undisturbed
def test_a_stop_does_the_same_as_with_nginx(server: Server, resilience: Report) -> None:
    """Runs last, as it stops the container."""
    stops.check(server, resilience, "without nginx")


def handles_a_stop() -> bool:
    """Whether vLLM's interpreter handles SIGTERM yet; it has not begun to import vLLM then."""
    for vllm in vllm_processes():
        caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{vllm}/status").read_text(), re.M)
        return bool(caught and int(caught[1], 16) & 1 << (signal.SIGTERM - 1))
    return False


def test_a_stop_during_the_start_ends_pid_1(container: None, tmp_path: Path) -> None:
    """A signal that PID 1 does not handle does not end it, and vLLM installs a handler late."""
    log = tmp_path / "log"
    process = launch("--model", MODEL, "--nginx", "0", log=log)
    try:
        wait_for(handles_a_stop, process, log)
        (vllm,) = vllm_processes()
        os.kill(vllm, signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 1  # the signal did not go to serve
        assert gone(), leftovers()
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise

"""How `make serve` starts and ends: its messages, and that it leaves nothing behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from predict import accepting

from deploy.config import PORT
from deploy.paths import ROOT
from local.ports import open_files, sockets_of
from local.processes import (
    launch,
    stop,
    vllm_processes,
)
from tests.support import faults
from tests.support.container import SPAWNED, Running, gone, leftovers, wait_for
from tests.support.faults import API_SERVER, ENGINE

PATIENCE_SECONDS = 120  # ending takes seconds; if the signal is lost, it never happens

alone = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


@pytest.fixture
def starting(container: None, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A container whose vLLM has just been started, long before it is ready."""
    log = tmp_path / "log"
    process = launch("--model", "mistral-7b", log=log)
    try:
        wait_for(lambda: vllm_processes() != [], process, log)
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@alone
@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "[serve] starting the container"),  # Linux drops a SIGTERM to PID 1
        (signal.SIGTERM, "supervisord started with pid 1"),  # its next fork would miss the signal
        (signal.SIGHUP, "spawned: 'model-server'"),
    ],
)
def test_a_signal_during_the_start_ends_everything_at_once(
    container: None, tmp_path: Path, number: signal.Signals, after: str
) -> None:
    log = tmp_path / "log"
    process = launch("--model", "mistral-7b", log=log)
    try:
        wait_for(lambda: after in log.read_text(), process, log)
        assert stop(process, number) == 0
    finally:
        process.kill()
        process.wait()
    assert gone(), leftovers()
    text = log.read_text()
    assert text.endswith("[serve] stopped\n")
    assert "killing '" not in text  # supervisord's line for a program that does not end in 10 s


@alone
def test_ctrl_c_at_make_serve_ends_everything(container: None, tmp_path: Path) -> None:
    """As a terminal does it: the signal goes at once to make and everything it started; this runs
    config.yaml as it is."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "serve", "CONFIG=1"],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    wait_for(lambda: vllm_processes() != [], make, log)
    os.killpg(make.pid, signal.SIGINT)
    make.wait(PATIENCE_SECONDS)
    assert gone(), leftovers()
    said = [line for line in log.read_text().splitlines() if line.startswith("[serve] ")]
    assert said[0] == "[serve] taking config.yaml as it is"
    assert said.count("[serve] stopping") == 1
    assert said[-1] == "[serve] stopped"


@alone
def test_killing_serve_itself_ends_everything(
    starting: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, _ = starting
    process.kill()
    process.wait()
    assert gone(), leftovers()


def send_to_vllm(number: int) -> None:
    for pid in vllm_processes():  # a process that it starts has its name for a moment
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@alone
def test_progress_is_shown_and_the_end_of_vllm_said_in_one_line(
    starting: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, log = starting

    def waits() -> bool:
        send_to_vllm(signal.SIGSTOP)  # otherwise a fast machine would be ready first
        return "[serve] waiting for vLLM, 5 s" in log.read_text()

    wait_for(waits, process, log)
    text = log.read_text()
    assert "[serve] building the Truss context" in text
    assert "supervisord started with pid 1" in text
    send_to_vllm(signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) == 1
    last = log.read_text().splitlines()[-1]
    assert last == "make serve: the container ended before it was ready; its log says why"
    assert gone(), leftovers()


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.serve", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_a_second_container_is_refused_in_one_line(container: Running) -> None:
    second = refused("--model", "pixtral-12b")
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    said = "port 8080, which nginx needs, is taken by process "
    assert re.search(said + r"\d+ \(.*python\S* -m scripts\.serve ", line), line
    assert container.http.get("/v1/models/model").status_code == 200


@alone
def test_a_taken_vllm_port_is_refused_in_one_line(container: None) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8000))
        other.listen()
        second = refused()
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert f"port 8000, which vLLM needs, is taken by process {os.getpid()} (" in line


@alone
def test_an_unknown_model_is_refused_in_one_line(container: None) -> None:
    second = refused("--model", "llama")
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    assert "no model 'llama'" in line


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_the_server_runs_as_user_60000_and_sees_only_its_own(container: Running) -> None:
    (vllm,) = vllm_processes()
    status = Path(f"/proc/{vllm}/status").read_text()
    inside = int(next(line for line in status.splitlines() if line.startswith("NSpid")).split()[-1])
    assert inside < 10  # its own PID namespace
    root = Path(f"/proc/{vllm}/root")
    assert not (root / "root" / ".ssh").exists()
    assert not (root / str(ROOT).lstrip("/") / "tests").exists()
    assert (root / "packages" / "predict" / "app.py").is_file()
    uid_map = Path(f"/proc/{vllm}/uid_map").read_text().split()
    assert uid_map[0] == "60000"


def test_shared_containers_fork_their_engine_except_one_that_starts_it_as_the_image_does(
    container: Running,
) -> None:
    forked = "engine and workers are forked" in container.log.read_text()
    assert forked == (container.card.name != SPAWNED)


def test_the_api_server_accepts_many_connections_at_a_time(container: Running) -> None:
    """And its engine, even a fork, does not keep the port open after its end."""
    listening = sockets_of(PORT)
    for who, expected in ((API_SERVER, accepting.AT_ONCE), (ENGINE, 0)):
        (process,) = faults.processes_of(who)
        handles = [name for name in open_files(Path(f"/proc/{process}")) if name in listening]
        assert len(handles) == expected, who


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_the_printed_curl_line_works_when_pasted(container: Running) -> None:
    text = container.log.read_text()
    (start,) = re.findall(r"^\[serve\] ready after (\d+) s$", text, re.MULTILINE)
    (whole,) = re.findall(
        r"^\[serve\] Ready (\d+) s after the command began\. Try:$", text, re.MULTILINE
    )
    assert int(whole) >= int(start)
    pasted = text[text.index("\ncurl --no-buffer") :].split("\n\n")[0]
    assert subprocess.run(["sh", "-c", f"{pasted} --fail"], capture_output=True).returncode == 0

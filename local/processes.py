"""A container started by local.truss, and the processes in it, seen from outside."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from deploy.paths import ROOT
from local.ports import words_of
from local.truss import READY, URL

START_SECONDS = 400  # a timeout, not a measure: these machines are shared
STOP_SECONDS = 40
SAID_LAST = "\ncurl --no-buffer"  # scripts/serve.py


def launch(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.serve", *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, url: str = URL) -> list[int]:
    """Waits for a 200 from the readiness route, and until `make serve` has said so, the last of its
    lines → the statuses before it."""
    seen: list[int] = []
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline:
            assert process.poll() is None, f"serve ended early:\n{tail(log)}"
            try:
                status = client.get(f"{url}{READY}").status_code
            except httpx.HTTPError:
                status = 0
            if status == 200 and SAID_LAST in log.read_text(errors="replace"):
                return seen
            if status != 200:
                seen.append(status)
            time.sleep(0.1 if status == 200 else 0.5)
    raise AssertionError(f"not ready after {START_SECONDS} s:\n{tail(log)}")


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(STOP_SECONDS)


def container_processes() -> list[tuple[int, list[str]]]:
    """Process id and command line of every process in a container."""
    return [(pid, words) for pid, words in command_lines() if _is_of_a_container(pid)]


def command_lines() -> list[tuple[int, list[str]]]:
    """Process id and command line of every process on our network, where the ports are."""
    found, ours = [], os.readlink("/proc/self/ns/net")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            words = words_of(process)
            if os.readlink(process / "ns" / "net") == ours:
                found.append((int(process.name), words))
    return found


def vllm_processes() -> list[int]:
    """The process ids of `vllm serve`."""
    return [
        pid
        for pid, words in command_lines()
        if [Path(word).name for word in words[1:2]] == ["vllm"]
    ]


def _is_of_a_container(pid: int) -> bool:
    """Whether a process sees a container's files as its root. This machine's own root may also have
    an /app, if it is itself a container."""
    root = Path(f"/proc/{pid}/root")
    try:
        return not root.samefile("/") and (root / "app" / "config.yaml").is_file()
    except OSError:
        return False

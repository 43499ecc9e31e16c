"""A container of what was pushed, started by scripts.serve, and what a test asks of it."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx
import openai
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from local.standins.corpus import Tokenizer
from scripts import standin
from scripts.cards import ROOT, Card
from scripts.serve import READINESS, URL
from tests.platform.baseten import Deployment

START_SECONDS = 400  # patience, not a measure: these machines are shared
STOP_SECONDS = 40


@dataclass
class Running:
    card: Card
    deployment: Deployment  # what it was made from
    process: subprocess.Popen[bytes]
    log: Path
    before_ready: list[int]  # what the readiness route answered while vLLM was loading

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(api_key="not-needed-here", base_url=f"{URL}/v1", max_retries=0)

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=URL, timeout=120, trust_env=False)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return MistralTokenizer.from_file(str(standin.tokenizer_path(self.card)))


def launch(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.serve", *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> list[int]:
    """The statuses of the readiness route before it was 200."""
    seen: list[int] = []
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"serve ended early:\n{tail(log)}"
        try:
            status = httpx.get(READINESS, timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            status = 0
        if status == 200:
            return seen
        seen.append(status)
        time.sleep(0.5)
    raise AssertionError(f"not ready after {START_SECONDS} s:\n{tail(log)}")


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 120
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, tail(log)
        assert time.monotonic() < deadline, tail(log)
        time.sleep(0.1)


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(STOP_SECONDS)


@contextmanager
def container(card: Card, deployment: Deployment, folder: Path) -> Iterator[Running]:
    """The running container of an upload; stopped at the end, which must leave nothing behind."""
    log = folder / f"{card.name}.log"
    process = launch("--truss", str(deployment.unpack(folder / "uploaded")), log=log)
    try:
        running = Running(card, deployment, process, log, wait_until_ready(process, log))
        yield running
        running.http.close()
        running.client.close()
        assert stop(process) == 0, tail(log)
        assert leftovers() == []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def leftovers() -> list[str]:
    """What a container could leave: processes, folders, mounts."""
    processes = [" ".join(words) for _, words in container_processes()]
    folders = [str(path) for path in Path(tempfile.gettempdir()).glob("truss-*")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "/packages" in line]
    return processes + folders + mounts


def gone() -> bool:
    """Waits a moment for the kernel to clear away what was killed."""
    for _ in range(50):
        if leftovers() == []:
            return True
        time.sleep(0.1)
    return False


def container_processes() -> list[tuple[int, list[str]]]:
    """Process id and words of every process of a container."""
    return [(pid, words) for pid, words in command_lines() if _is_of_a_container(pid)]


def command_lines() -> list[tuple[int, list[str]]]:
    """Process id and words of every process there is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            words = path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            found.append((int(path.parent.name), words))
    return found


def vllm_processes() -> list[int]:
    """The process ids of `vllm serve`."""
    return [
        pid
        for pid, words in command_lines()
        if [Path(word).name for word in words[1:2]] == ["vllm"]
    ]


def _is_of_a_container(pid: int) -> bool:
    """Whether a process sees a container's files as its root."""
    try:
        return Path(f"/proc/{pid}/root/docker_server").is_dir()
    except OSError:
        return False

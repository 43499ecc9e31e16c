"""A container of what was pushed, started by local.truss, and the calls that tests make to it."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import httpx
import openai
import pytest

from deploy import cards
from deploy.cards import Card
from local.processes import container_processes, launch, stop, tail, wait_until_ready
from local.standins.corpus import Tokenizer
from local.truss import STRAIGHT_URL, URL
from tests.support import other_work
from tests.support.baseten import Deployment
from tests.support.timing import container_start
from tests.support.tokenizers import tokenizer

Asked = TypeVar("Asked")
Got = TypeVar("Got")

# A card with a base uses that card's stand-in. All tests run on cards whose `standin.tests` says
# all; the others have a container for what differs between models.
OF_MODELS = [card for card in cards.load_all() if card.base is None]
# Beyond 20 connections, its default, httpcore may close one that a thread was just given.
KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=None)
# For containers whose engine and workers are new processes, as in the image, and not forks
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
SPAWNED = "mixtral-8x7b"  # of the shared ones
MOST_TESTED = [card for card in OF_MODELS if card.standin.tests == "all"]
every_card = pytest.mark.parametrize("container", [card.name for card in OF_MODELS], indirect=True)
with_tools = pytest.mark.parametrize(
    "container", [card.name for card in OF_MODELS if card.features.tools], indirect=True
)


@dataclass
class Running:
    card: Card
    deployment: Deployment  # the container's origin
    process: subprocess.Popen[bytes]
    log: Path
    before_ready: list[int]  # statuses of the readiness route while vLLM was loading
    url: str = URL

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(api_key="not-needed-here", base_url=f"{self.url}/v1", max_retries=0)

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False, limits=KEPT)

    @property
    def tokenizer(self) -> Tokenizer:
        return tokenizer(self.card.name)


def wait_for(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 120
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, tail(log)
        assert time.monotonic() < deadline, tail(log)
        time.sleep(0.1)


@contextmanager
def run_container(
    card: Card,
    deployment: Deployment,
    folder: Path,
    variables: Mapping[str, str],
    nginx: bool = True,
) -> Iterator[Running]:
    """The running container of an upload, with these environment variables in addition to its own,
    in one of Truss's two builds. It is stopped at the end, unless a test has ended it, and must
    leave nothing behind."""
    log = folder / f"{card.name}.log"
    url = URL if nginx else STRAIGHT_URL
    options = [f"--variable={name}={value}" for name, value in variables.items()]
    options.append(f"--nginx={nginx:d}")
    process = launch("--truss", str(deployment.unpack(folder / "uploaded")), *options, log=log)
    try:
        with container_start(card.name):
            before_ready = wait_until_ready(process, log, url)
        running = Running(card, deployment, process, log, before_ready, url)
        yield running
        running.http.close()
        running.client.close()
        if process.poll() is None:
            assert stop(process) == 0, tail(log)
        assert gone(), leftovers()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _folders() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob("truss-*")}


_THERE_BEFORE = _folders()  # the remains of a killed run are not this run's


def leftovers() -> list[str]:
    """What a container could leave behind: processes, folders, mounts."""
    processes = [" ".join(words) for _, words in container_processes()]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "/packages" in line]
    return processes + sorted(_folders() - _THERE_BEFORE) + mounts


def gone() -> bool:
    """Waits for the kernel to clean up after a kill: a moment, unless the machine is busy."""
    for _ in range(300):
        if leftovers() == []:
            return True
        time.sleep(0.1)
    return False


def within(seconds: float, measure: Callable[[], float]) -> bool:
    """Whether `measure` returns less than that many seconds; tried again if other work has occupied
    the machine's cores."""
    return other_work.tried_again(measure, lambda took: took < seconds) < seconds


def at_once(
    ask: Callable[[Asked], Got], asked: Iterable[Asked], most: int | None = None
) -> list[Got]:
    """The results of `ask` for all, in their order, called concurrently, `most` at a time: a step
    of the engine takes hardly more CPU for many than for one."""
    each = list(asked)
    with ThreadPoolExecutor(most or len(each)) as pool:
        return list(pool.map(ask, each))


def flowing(ask: Callable[[], list[str]], least: int) -> list[str]:
    """The first of five streams that has more than `least` chunks, or the last: on a busy machine
    vLLM merges into one chunk all that has waited for its reader."""
    for _ in range(5):
        got = ask()
        if len(got) > least:
            break
    return got

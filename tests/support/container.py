"""A container of what was pushed, started by local.truss, and what a test asks of it."""

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

# A card with a base has that one's stand-in. Where `standin.tests` says all; others have a
# container for what differs between models.
OF_MODELS = [card for card in cards.load_all() if card.base is None]
# Whose engine and workers are started anew, as in the image, where others here are forks
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
SPAWNED = ("mistral-7b", "mixtral-8x7b")
MOST_TESTED = [card for card in OF_MODELS if card.standin.tests == "all"]
every_card = pytest.mark.parametrize("container", [card.name for card in OF_MODELS], indirect=True)
with_tools = pytest.mark.parametrize(
    "container", [card.name for card in OF_MODELS if card.features.tools], indirect=True
)


@dataclass
class Running:
    card: Card
    deployment: Deployment  # what it was made from
    process: subprocess.Popen[bytes]
    log: Path
    before_ready: list[int]  # what the readiness route answered while vLLM was loading
    url: str = URL

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(api_key="not-needed-here", base_url=f"{self.url}/v1", max_retries=0)

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

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
    """The running container of an upload, with these environment variables beside its own, in one
    of Truss's two builds; stopped at the end, unless a test has ended it, which must leave nothing
    behind."""
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


_THERE_BEFORE = _folders()  # what a run that was killed has left is not ours


def leftovers() -> list[str]:
    """What a container could leave: processes, folders, mounts."""
    processes = [" ".join(words) for _, words in container_processes()]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "/packages" in line]
    return processes + sorted(_folders() - _THERE_BEFORE) + mounts


def gone() -> bool:
    """Waits for the kernel to clear away what was killed: a moment, unless it has other work."""
    for _ in range(300):
        if leftovers() == []:
            return True
        time.sleep(0.1)
    return False


def within(seconds: float, measure: Callable[[], float]) -> bool:
    """Whether what `measure` returns, in seconds, is less; tried again where other work had the
    machine's cores meanwhile."""
    return other_work.tried_again(measure, lambda took: took < seconds) < seconds


def at_once(
    ask: Callable[[Asked], Got], asked: Iterable[Asked], most: int | None = None
) -> list[Got]:
    """What `ask` returns for each, in their order, all asked at the same time, or `most` of them: a
    step of the engine takes the CPU hardly longer for many than for one."""
    each = list(asked)
    with ThreadPoolExecutor(most or len(each)) as pool:
        return list(pool.map(ask, each))


def flowing(ask: Callable[[], list[str]], least: int) -> list[str]:
    """The first of five streams that has more than `least` chunks, or the last: on a busy machine
    vLLM sends as one chunk all that has waited for its reader."""
    for _ in range(5):
        got = ask()
        if len(got) > least:
            break
    return got

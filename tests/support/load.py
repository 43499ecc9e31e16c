"""A container under load: concurrent streams, how each ended, and the server's state meanwhile.

Promises: all requests go through nginx, as users' requests do, on loopback; an answer is right only
if it is complete and exact.
"""

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai

from bench.cpu import cpu_seconds
from deploy import cards
from deploy.config import planned, render
from deploy.options import Options
from deploy.plan import Plan
from local import processes
from local.standins.corpus import chat, dialogues
from local.truss import STRAIGHT_URL, URL, stage
from tests.support.container import SPAWN, Running
from tests.support.timing import container_start

LIVENESS = f"{URL}/"  # Truss's; nginx forwards it
CHAT = "/v1/chat/completions"
ENDLESS: Mapping[str, Any] = {"ignore_eos": True, "max_tokens": 30000}  # outlast a scenario
ENDED_WELL = "ended without an error"
PATIENCE_SECONDS = 300  # for what takes seconds, or half a minute under load; else it never ends
AT_ONCE = 500  # streams: more than the slots of any model here

_NEW = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # one for each request


@dataclass(frozen=True)
class Outcome:
    """How a request ended. `status` 0: without one. `right`: complete, and the text exact."""

    status: int
    right: bool
    seconds: float
    retry_after: str | None = None
    said: str = ""


def ending(outcome: Outcome) -> str:
    """How a stream ended that was not meant to end well."""
    if outcome.status == 0:
        return "cut off"
    if outcome.status != 200:
        return f"refused with {outcome.status}"
    return "ended by an error event" if '"error"' in outcome.said else ENDED_WELL


def endings(outcomes: Sequence[Outcome]) -> str:
    """How the interrupted streams ended, for a table."""
    found = [ending(outcome) for outcome in outcomes]
    return ", ".join(f"{found.count(how)} {how}" for how in dict.fromkeys(found))


def broken_off(outcomes: Sequence[Outcome], count: int) -> bool:
    """Whether `count` streams ended, each with an error, before or within its stream."""
    return len(outcomes) == count and ENDED_WELL not in map(ending, outcomes)


@dataclass
class Server:
    """A container as the scenarios see it: their own, or one shared with other tests."""

    model: str
    process: subprocess.Popen[bytes]
    log: Path
    url: str = URL

    @classmethod
    def of(cls, container: Running) -> "Server":
        return cls(container.card.name, container.process, container.log, container.url)


@contextlib.contextmanager
def server(
    model: str,
    variables: Mapping[str, str] | None = None,
    nginx: bool = True,
    **serving: int,
) -> Iterator[Server]:
    """A separate container, ended afterwards if it still runs. `variables`: of its environment, in
    addition to the config's; its engine is started as in the image, because these tests watch how
    processes end. `nginx`: which of Truss's two builds. `serving`: changed fields of the card's
    section."""
    card = cards.load(model)
    changed = card.model_copy(update={"serving": card.serving.model_copy(update=serving)})
    config = render(changed, Options())
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        truss, log = Path(folder) / "truss", Path(folder) / "log"
        truss.mkdir()
        stage(config, truss)
        variables = {**SPAWN, **(variables or {})}
        options = [f"--variable={name}={value}" for name, value in variables.items()]
        options.append(f"--nginx={nginx:d}")
        url = URL if nginx else STRAIGHT_URL
        process = processes.launch("--truss", str(truss), *options, log=log)
        try:
            with container_start(model):
                processes.wait_until_ready(process, log, url)
            streams(model, 2, url)  # warm-up
            yield Server(model, process, log, url)
            if process.poll() is None:
                processes.stop(process)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def plan_of(model: str) -> Plan:
    return planned(cards.load(model), Options())


def known(model: str) -> list[tuple[list[dict[str, str]], str]]:
    """Messages and the exact answer, of every dialogue that the model's stand-in knows."""
    images = cards.load(model).features.images > 0
    found = [chat(turns) for turns in dialogues(images).values()]
    return [(messages, answer) for messages, answer in found if isinstance(answer, str)]


def streams(
    model: str, count: int, url: str = URL, begun: set[int] | None = None, **more: Any
) -> list[Outcome]:
    """`count` concurrent streams, each with the next dialogue in turn and `more` in its request.
    `begun` receives those that have text."""
    heard = set[int]() if begun is None else begun

    async def run() -> list[Outcome]:
        async with httpx.AsyncClient(  # no certificates: not needed here, and they take 20 ms
            base_url=url, timeout=PATIENCE_SECONDS, trust_env=False, limits=_NEW, verify=False
        ) as client:
            asked = known(model)
            return await asyncio.gather(
                *(
                    _stream(client, *asked[i % len(asked)], more, functools.partial(heard.add, i))
                    for i in range(count)
                )
            )

    return asyncio.run(run())


async def _stream(
    client: httpx.AsyncClient,
    messages: list[dict[str, str]],
    answer: str,
    more: dict[str, Any],
    heard: Callable[[], None],
) -> Outcome:
    body = {"messages": messages, "stream": True, "temperature": 0, "max_tokens": 300, **more}
    started = time.monotonic()
    text, said, done = "", "", False
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            if response.status_code != 200:
                said = (await response.aread()).decode()
                after = response.headers.get("retry-after")
                return Outcome(response.status_code, False, time.monotonic() - started, after, said)
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        said = json.dumps(event)
                    for choice in event.get("choices", []):
                        text += choice["delta"].get("content") or ""
                    if text:
                        heard()
    except httpx.HTTPError as error:
        return Outcome(0, False, time.monotonic() - started, said=repr(error))
    # with ignore_eos, the text after the end of the answer is noise
    same = text.startswith(answer) if more.get("ignore_eos") else text == answer
    right = done and not said and same
    return Outcome(200, right, time.monotonic() - started, said=said or text)


def with_retries(model: str, count: int) -> list[Outcome]:
    """`count` concurrent streams through OpenAI's client, which retries as it does by default."""

    async def one(
        client: openai.AsyncOpenAI, messages: list[dict[str, str]], answer: str
    ) -> Outcome:
        started = time.monotonic()
        try:
            stream: Any = await client.chat.completions.create(
                model=model,
                messages=messages,  # type: ignore[arg-type]
                stream=True,
                temperature=0,
                max_tokens=300,
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        except openai.APIStatusError as error:
            return Outcome(error.status_code, False, time.monotonic() - started, said=str(error))
        return Outcome(200, text == answer, time.monotonic() - started, said=text)

    async def run() -> list[Outcome]:
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{URL}/v1") as client:
            asked = known(model)
            return await asyncio.gather(
                *(one(client, *asked[i % len(asked)]) for i in range(count))
            )

    return asyncio.run(run())


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and text of a GET, or of a POST if there is a body; through http.client, for polling:
    it takes a third of httpx's time."""
    parts = urlsplit(url)
    with contextlib.closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("GET" if body is None else "POST", parts.path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()


def metrics(url: str = URL) -> dict[str, float]:
    """vLLM's metrics that have one value, by name."""
    lines = ask(f"{url}/metrics")[1].splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name.split("{")[0]: float(value) for name, value in pairs}


def under_way(url: str = URL) -> float:
    """The number of requests in the engine, running or waiting."""
    found = metrics(url)
    return found["vllm:num_requests_running"] + found["vllm:num_requests_waiting"]


def memory_of_processes() -> dict[str, int]:
    """Resident memory of everything in the container, in bytes, by process id and name."""
    found = {}
    for pid, words in processes.container_processes():
        with contextlib.suppress(OSError):  # it has ended
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            name = " ".join([Path(words[0]).name, *words[1:3]])
            found[f"{pid} {name}"] = pages * os.sysconf("SC_PAGE_SIZE")
    return found


def shared_memory() -> int:
    """Bytes in the container's /dev/shm, where nginx keeps bodies above 4 MB."""
    for pid, _ in processes.container_processes():
        with contextlib.suppress(OSError):  # it has ended
            found = os.statvfs(f"/proc/{pid}/root/dev/shm")
            return (found.f_blocks - found.f_bfree) * found.f_frsize
    return 0


def core_seconds(engine: bool) -> float:
    """CPU time of vLLM's engine, or of everything else in the container, including children that
    have ended."""
    found = processes.container_processes()
    return cpu_seconds([pid for pid, words in found if words[0].startswith("VLLM::") == engine])


def memories() -> tuple[int, int]:
    """Memory of all processes, and of all but vLLM's engine, at the same moment."""
    found = memory_of_processes()
    beside = sum(taken for name, taken in found.items() if "VLLM::" not in name)
    return sum(found.values()), beside


def memory(engine: bool = True) -> int:
    """Memory of all processes, or of all but vLLM's `engine`."""
    whole, beside = memories()
    return whole if engine else beside


def wait(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Waits until the condition holds → the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not so after {seconds:.0f} s"
        # the API server takes 5 ms to return its metrics
        time.sleep(min(0.25, 0.05 + (time.monotonic() - started) / 20))
    return time.monotonic() - started


def status(url: str) -> int:
    """The status of a GET; 0 if there is no answer."""
    try:
        return ask(url)[0]
    except (HTTPException, OSError):
        return 0


@contextlib.contextmanager
def meanwhile(work: Callable[[], list[Outcome]]) -> Iterator[list[Outcome]]:
    """Runs `work` in a thread; its results are in the list once the block has ended."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.extend(work()))
    thread.start()
    try:
        yield outcomes
    finally:
        thread.join()


@contextlib.contextmanager
def flowing(model: str, count: int, url: str = URL, **more: Any) -> Iterator[list[Outcome]]:
    """`count` streams in a thread; the block begins once each has text. The clients tell, not
    vLLM's count of running requests: a fast engine would finish before it is read."""
    begun: set[int] = set()
    with meanwhile(lambda: streams(model, count, url, begun, **more)) as outcomes:
        wait(lambda: len(begun) == count or bool(outcomes))
        yield outcomes

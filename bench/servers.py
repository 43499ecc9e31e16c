"""Servers to measure: a Truss in its container, with or without a bypass; `vllm serve` alone.

Promises: a server counts as started once it has returned the stand-in's exact answer; it starts
with an empty vLLM cache, like a new replica; nothing is left running. Refuses a wrong answer.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from bench import bypass
from bench.errors import BenchError
from deploy.cards import Card
from deploy.config import render
from deploy.options import Options
from deploy.start_command import serve_arguments
from local import sandbox
from local.standins import cache
from local.standins.corpus import chat, dialogues
from local.truss import (
    DIRECTLY,
    PACKAGES,
    SHARED_CACHE,
    Image,
    build,
    environment,
    local_variables,
    mounts,
    stage,
)

PATIENCE_SECONDS = 400
POLL_SECONDS = 0.05
STOP_SECONDS = 20
LAST_LINES = 5  # of a log, shown if a start fails
SUPERVISORD = re.compile(r" INFO (spawned|stopped|exited|success|waiting|reaped|received)\b")

# Enough for all requested streams, with none rejected: the plan's own limits are for a GPU.
ROOM = {"--max-num-seqs": "256", "--max-num-queued-reqs": "320"}

# Ends the server if the benchmark is killed, as bwrap does for the container.
WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")

Server = AbstractContextManager[IO[bytes]]  # entering it starts a server and returns its log


@dataclass(frozen=True)
class Truss:
    """A built Truss, ready to start."""

    image: Image
    command: str


def truss(
    card: Card, flags: Mapping[str, str | None] | None = None, bypassed: bool = False
) -> Truss:
    """A card's Truss with the variables of a local run, one worker and some of its flags changed;
    `bypassed` adds bare vLLM under /bare."""
    changed = {**(flags or {}), **({"--middleware": "bench_bypass.Bypass"} if bypassed else {})}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stage(render(card, Options(workers=1), changed), Path(folder))
        if bypassed:
            code = Path(bypass.__file__).read_text()
            (Path(folder) / "packages" / "bench_bypass.py").write_text(code)
        files, _, content = build(Path(folder))
    command = content["docker_server"]["start_command"]
    # without the plugins of a local run: vLLM starts its engine as in the image
    mounted, variables = mounts(content, plugins=False), environment(content, plugins=False)
    return Truss(Image(files, mounted, variables), command)


@contextmanager
def contained(truss: Truss, command: Sequence[str] = sandbox.ENTRYPOINT) -> Iterator[IO[bytes]]:
    """The Truss's container, or `command` alone in its sandbox → its log."""
    image = truss.image
    container = sandbox.start(image.files, image.mounts, image.environment, command, image.writable)
    try:
        assert container.process.stdout
        yield container.process.stdout
        container.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            container.process.wait(STOP_SECONDS)
    finally:  # kills at once on an interrupt
        container.signal(signal.SIGKILL)
        container.process.wait()


def compiling(truss: Truss, shared: Path) -> Truss:
    """The same with torch.compile on, and `shared` as the folder in which a model's replicas share
    what they have compiled."""
    variables = {**truss.image.environment, "TORCH_COMPILE_DISABLE": "0"}
    image = replace(truss.image, environment=variables, writable={SHARED_CACHE: shared})
    return replace(truss, image=image)


def bare(truss: Truss) -> Server:
    """`vllm serve` directly on this machine, with the flags and variables of a Truss."""
    (checkpoint,) = truss.image.mounts.values()
    variables = {**sandbox.IMAGE_ENVIRONMENT, **truss.image.environment}
    for name, value in variables.items():
        variables[name] = value.replace("/packages", str(PACKAGES))
    return _vllm(checkpoint, serve_arguments(truss.command)[1:], variables)


def stock(card: Card, port: int, *flags: str) -> Server:
    """`vllm serve` as users start it for this model, with only the variables of a local run."""
    given = ["--port", str(port), "--served-model-name", card.name, "--tokenizer-mode", "mistral"]
    formats = {"--config-format": card.formats.config, "--load-format": card.formats.load}
    given += [word for pair in formats.items() if pair[1] for word in pair]
    variables = {**sandbox.IMAGE_ENVIRONMENT, **local_variables()}
    variables |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return _vllm(cache.ensure(card), [*given, *flags], variables)


@contextmanager
def _vllm(
    checkpoint: Path, flags: Sequence[str], variables: Mapping[str, str]
) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        process = subprocess.Popen(
            [*WITH_US, sandbox.VENV / "bin" / "vllm", "serve", str(checkpoint), *flags],
            env={**variables, "HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert process.stdout
            yield process.stdout
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # the rest of its session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def started(server: Server, port: int, card: Card) -> Iterator[float]:
    """The server, once it has answered → the seconds until then."""
    log: list[str] = []

    def read(pipe: IO[bytes]) -> None:
        for line in pipe:
            log.append(line.decode(errors="replace"))
            del log[:-1000]

    messages, answer = chat(dialogues(images=card.features.images > 0)["mistral_wind"])
    begun = time.monotonic()
    with server as pipe:
        reader = threading.Thread(target=read, args=(pipe,), daemon=True)
        reader.start()
        while not answered(port, messages, answer):
            spent = time.monotonic() - begun
            if spent > PATIENCE_SECONDS or not reader.is_alive():
                raise BenchError(f"no answer after {spent:.0f} s; last of all: {last_words(log)}")
            time.sleep(POLL_SECONDS)
        yield time.monotonic() - begun
    reader.join()


def last_words(log: Sequence[str]) -> str:
    """A server's last informative log line: supervisord logs the end of each process."""
    lines = [line.strip() for line in log if line.strip()]
    telling = [line for line in lines if not SUPERVISORD.search(line)]
    return " / ".join((telling or lines or ["nothing was logged"])[-LAST_LINES:])


def answered(port: int, messages: Sequence[Mapping[str, Any]], answer: str) -> bool:
    """Whether the server answers yet; `BenchError` if the answer is wrong."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({"messages": messages, "temperature": 0}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with DIRECTLY.open(request, timeout=120) as response:
            got = json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        if error.code == 502:  # nginx is up, vLLM is not
            return False
        raise BenchError(f"the first answer has status {error.code}: {error.read()!r}") from error
    except OSError:
        return False
    if got.strip() != answer:
        raise BenchError(f"the first answer is {got!r}, not {answer!r}")
    return True

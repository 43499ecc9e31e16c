"""Starts of a Truss here, in its container or bare, until it has answered.

Promises: a start counts until the stand-in's answer has come, to the letter; each has an empty
cache of vLLM's, as a new replica has it; nothing is left running. Refuses a wrong answer.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError
from bench.startup_phases import Log, phases
from deploy.cards import Card
from deploy.config import PORT, render
from deploy.options import Options
from deploy.start_command import serve_arguments
from local import sandbox
from local.standins.corpus import chat, dialogues
from local.truss import (
    DIRECTLY,
    LOCAL_ENVIRONMENT,
    NGINX_PORT,
    PACKAGES,
    Image,
    build,
    environment,
    mounts,
    stage,
)

PATIENCE_SECONDS = 400
POLL_SECONDS = 0.05
STOP_SECONDS = 20
LAST_LINES = 5  # of a log, shown when a start fails
SUPERVISORD = re.compile(r" INFO (spawned|stopped|exited|success|waiting|reaped|received)\b")


@dataclass(frozen=True)
class Question:
    messages: list[dict[str, Any]]
    answer: str


@dataclass(frozen=True)
class Truss:
    """A built Truss, ready to start."""

    image: Image
    command: str

    def without(self, part: str) -> "Truss":
        """Less the files of the image whose path begins so."""
        files = {path: data for path, data in self.image.files.items() if not path.startswith(part)}
        if len(files) == len(self.image.files):
            raise BenchError(f"no file of the image is in {part}; mend bench/startup_steps.py")
        return dataclasses.replace(self, image=dataclasses.replace(self.image, files=files))

    def with_variables(self, variables: Mapping[str, str]) -> "Truss":
        environment = {**self.image.environment, **variables}
        return dataclasses.replace(
            self, image=dataclasses.replace(self.image, environment=environment)
        )


def question(card: Card) -> Question:
    """One that the model's stand-in answers to the letter."""
    return Question(*chat(dialogues(images=card.features.images > 0)["mistral_wind"]))


def truss_of(config: str, packages: Path, local: Path) -> Truss:
    """The Truss of a config.yaml and a packages folder, with the variables of a local run."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stage(config, Path(folder), packages)
        files, _, content = build(Path(folder))
    variables = environment(content, local)
    command = content["docker_server"]["start_command"]
    return Truss(Image(files, mounts(content), variables), command)


def today(card: Card) -> Truss:
    return truss_of(render(card, Options()), PACKAGES, LOCAL_ENVIRONMENT)


@contextmanager
def contained(truss: Truss, command: Sequence[str] = sandbox.ENTRYPOINT) -> Iterator[IO[bytes]]:
    """A running container, or `command` alone in its sandbox → its log."""
    image = truss.image
    container = sandbox.start(image.files, image.mounts, image.environment, command)
    try:
        assert container.process.stdout
        yield container.process.stdout
    finally:
        container.signal(signal.SIGTERM)
        try:
            container.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            container.signal(signal.SIGKILL)
            container.process.wait()


@contextmanager
def bare(truss: Truss) -> Iterator[IO[bytes]]:
    """vLLM on this machine as it is, with the flags and variables of a Truss → its log."""
    (checkpoint,) = truss.image.mounts.values()
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        environment = {**sandbox.IMAGE_ENVIRONMENT, **truss.image.environment, "HOME": home}
        for name, value in environment.items():
            environment[name] = value.replace("/packages", str(PACKAGES))
        flags = serve_arguments(truss.command)[1:]
        process = subprocess.Popen(
            [sandbox.VENV / "bin" / "vllm", "serve", str(checkpoint), *flags],
            env=environment,
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
            with contextlib.suppress(ProcessLookupError):  # what is left of its session
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Start:
    """Seconds from a start to the first correct answer; a container's, by its phases too."""

    seconds: float
    phases: dict[str, float]


Running = AbstractContextManager[IO[bytes]]  # entered: something starts, and this is its log
Way = Callable[[], Start]


def start(running: Running, port: int, asked: Question) -> tuple[float, Log]:
    """Seconds to the first correct answer, and the log with the seconds of its lines."""
    log: Log = []

    def read(pipe: IO[bytes]) -> None:
        for line in pipe:
            log.append((time.monotonic() - begun, line.decode(errors="replace")))

    begun = time.monotonic()
    with running as pipe:
        reader = threading.Thread(target=read, args=(pipe,), daemon=True)
        reader.start()
        while not answered(port, asked):
            spent = time.monotonic() - begun
            if spent > PATIENCE_SECONDS or not reader.is_alive():
                raise BenchError(f"no answer after {spent:.0f} s; last of all: {last_words(log)}")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - begun
    reader.join()
    return seconds, log


def last_words(log: Log) -> str:
    """What a server logged last that says something: supervisord tells each end of a process."""
    lines = [line.strip() for _, line in log if line.strip()]
    telling = [line for line in lines if not SUPERVISORD.search(line)]
    return " / ".join((telling or lines or ["nothing was logged"])[-LAST_LINES:])


def answered(port: int, asked: Question) -> bool:
    """Whether the server answers yet; `BenchError` when it answers wrongly."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({"messages": asked.messages, "temperature": 0}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with DIRECTLY.open(request, timeout=120) as response:
            got = json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        if error.code == 502:  # nginx is there, vLLM is not
            return False
        raise BenchError(f"the first answer has status {error.code}: {error.read()!r}") from error
    except OSError:
        return False
    if got.strip() != asked.answer:
        raise BenchError(f"the first answer is {got!r}, not {asked.answer!r}")
    return True


def cold(way: Way, truss: Truss) -> Way:
    """The same start, of files that this machine has not read since it was switched on."""

    def from_disk() -> Start:
        standard_library = Path(sysconfig.get_path("stdlib"))
        for folder in (sandbox.VENV, standard_library, *truss.image.mounts.values()):
            forget(folder)
        return way()

    return from_disk


def forget(folder: Path) -> None:
    """Takes the files in a folder out of the page cache, but for what a running process has mapped
    into its memory."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_container(truss: Truss, asked: Question) -> Way:
    def way() -> Start:
        seconds, log = start(contained(truss), NGINX_PORT, asked)
        return Start(seconds, phases(log, seconds))

    return way


def alone(truss: Truss, asked: Question) -> Way:
    """The start command in the container's sandbox, without supervisord and nginx."""
    command = ["/bin/sh", "-c", f"exec {truss.command}"]
    return lambda: Start(start(contained(truss, command), PORT, asked)[0], {})


def without_container(truss: Truss, asked: Question) -> Way:
    return lambda: Start(start(bare(truss), PORT, asked)[0], {})

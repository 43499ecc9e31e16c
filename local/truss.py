"""Runs the built Truss in the local container, in the foreground, until Ctrl-C or SIGTERM.

Promises: it runs what Baseten would run (Truss's own build context, the start command as rendered,
supervisord, nginx, vLLM, or vLLM alone in Truss's build without nginx); the log is shown; ready
means that the readiness route answers 200; however this ends, it leaves no process, mount or
folder. Refuses to start, with one line that says what to do, if a port is taken or a program is
missing.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import yaml

from deploy import cards
from deploy.cards import Card
from deploy.config import PORT
from deploy.errors import CommandError
from deploy.paths import ROOT
from deploy.start_command import argument
from local import sandbox
from local.finetunes import cache as finetunes
from local.machine import SEARCH_PATH, SYSTEM_PROGRAMS
from local.ports import listener
from local.standins import cache

PACKAGES = ROOT / "packages"
LOCAL_ENVIRONMENT = ROOT / "local" / "environment.yaml"
CPU_BUILD = ROOT / "local" / "cpu"  # vLLM plugins: fixes, and forks in place of new processes
LOCAL = "/local"  # CPU_BUILD's path in the container
NGINX_PORT = 8080  # fixed by Truss
URL = f"http://127.0.0.1:{NGINX_PORT}"
STRAIGHT_URL = f"http://127.0.0.1:{PORT}"  # vLLM's own, in a build without nginx
READY = "/v1/models/model"  # Truss's readiness route
READINESS = f"{URL}{READY}"
STOP_SECONDS = 25  # supervisord gives nginx 10 s, and then vLLM, before it kills them
SHARED_CACHE = "/cache/model"  # where Baseten mounts a folder that a model's replicas share
SLIM = "BT_USE_DOCKER_SERVER_SLIM"  # Truss's: "true" in a builder's environment omits nginx
SAY_EVERY_SECONDS = 5
WORKERS = (1, 2, 4)  # divide the KV heads of local/standins/decoders.py
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignores http_proxy
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotServeError(CommandError):
    """Why the container cannot run, and what to do, in one line."""


@dataclass(frozen=True)
class Image:
    """The contents of the container; `files`, `mounts` (read-only) and `writable` are keyed by path
    in the container."""

    files: dict[str, bytes]
    mounts: dict[str, Path]
    environment: dict[str, str]
    command: Sequence[str] = tuple(sandbox.ENTRYPOINT)
    writable: Mapping[str, Path] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address at which the platform reaches it."""
        return URL if self.command[0] == sandbox.ENTRYPOINT[0] else STRAIGHT_URL


def check_machine(ports: Mapping[str, int], nginx: bool = True) -> None:
    """`CannotServeError` unless the programs are installed and the `ports`, by owner, are free."""
    for program in ("bwrap", *(["nginx"] if nginx else [])):
        if shutil.which(program, path=SEARCH_PATH) is None:
            package = SYSTEM_PROGRAMS[program]
            raise CannotServeError(f"{program} is not installed: apt-get install {package}")
    for owner, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError as error:
                who = listener(port)
                by = f"by {who}" if who else f"({error.strerror})"
                raise CannotServeError(
                    f"port {port}, which {owner} needs, is taken {by}; end what listens there, "
                    "perhaps another make serve, and try again: the ports are fixed"
                ) from error


def stage(config: str, to: Path, packages: Path = PACKAGES) -> None:
    """Creates in the folder `to` the Truss that would be pushed with this config.yaml."""
    (to / "config.yaml").write_text(config, encoding="utf-8")
    no_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(packages, to / "packages", ignore=no_bytecode)


def build(truss: Path, nginx: bool = True) -> tuple[dict[str, bytes], list[str], dict[str, Any]]:
    """Builds the Truss in the folder `truss` with Truss's own builder → files, command of PID 1,
    config."""
    os.environ.setdefault("TRUSS_NO_UPDATE_CHECK", "1")
    from truss.contexts.image_builder.serving_image_builder import ServingImageBuilderContext

    with tempfile.TemporaryDirectory(prefix="truss-context-") as folder:
        context = Path(folder)
        with mock.patch.dict(os.environ, {SLIM: "false" if nginx else "true"}):
            ServingImageBuilderContext.run(truss).prepare_image_build_dir(context)
        files = sandbox.image_files(context, ROOT / "local" / "nginx.conf")
        command = sandbox.dockerfile_command((context / "Dockerfile").read_text())
    config = yaml.safe_load((truss / "config.yaml").read_text(encoding="utf-8"))
    return files, command, config


def mounts(
    config: dict[str, Any], given: Mapping[str, Path] | None = None, plugins: bool = True
) -> dict[str, Path]:
    """The config's mounts of weights and adapters → their stand-ins, built if necessary, or the
    path `given` for a place in the container."""
    given = given or {}
    entries = config.get("weights") or []
    places = [entry["mount_location"] for entry in entries]
    if unknown := sorted(set(given) - set(places)):
        raise CannotServeError(
            f"config.yaml mounts nothing at {unknown[0]}; it has {', '.join(places) or 'no mounts'}"
        )
    known = {card.weights.repo: card for card in cards.load_all() if card.base is None}
    cards_here = [known.get(repo_of(entry)) for entry in entries]
    base = next((card for card in cards_here if card), None)
    found: dict[str, Path] = {}
    for entry, card in zip(entries, cards_here, strict=True):
        place = entry["mount_location"]
        if card:
            folder = cache.ensure(card)
        elif place in given:
            folder = given[place]
        elif base is None:
            raise CannotServeError(
                f"there is no stand-in for {entry['source']}: no card in templates/models has "
                "these weights"
            )
        else:
            folder = finetunes.ensure(base) / kind_of(entry, base)
        if place.startswith("/tokenizers/"):  # only these files of the repo
            found |= {f"{place}/{name}": folder / name for name in entry["allow_patterns"]}
        else:
            found[place] = checked(place, given[place]) if place in given else folder
    return found | ({LOCAL: CPU_BUILD} if plugins else {})


def checked(place: str, folder: Path) -> Path:
    """The folder, if it has the file vLLM looks for first; without it vLLM would only show a
    traceback."""
    adapter = place.startswith("/adapters/")
    wanted = ("adapter_config.json",) if adapter else ("config.json", "params.json")
    if not any((folder / name).is_file() for name in wanted):
        raise CannotServeError(
            f"MOUNT={place}={folder}: there is no {' and no '.join(wanted)} in that folder"
        )
    return folder


def repo_of(entry: dict[str, Any]) -> str:
    return str(entry["source"]).removeprefix("hf://").split("@")[0]


def kind_of(entry: dict[str, Any], base: Card) -> str:
    """The kind of stand-in from local/finetunes: an adapter, or weights in a format."""
    if entry["mount_location"].startswith("/adapters/"):
        return "adapter"
    patterns, made = entry.get("allow_patterns") or [], finetunes.formats(base)
    taken = [
        format
        for format, file in (("hf", "model*.safetensors"), ("mistral", "params.json"))
        if (file in patterns or not patterns) and format in made
    ]
    if not taken:
        raise CannotServeError(
            f"own weights of {base.title} have a stand-in in the format {' or '.join(made)} alone; "
            f"use FORMAT={made[0]}"
        )
    return base.formats.config if base.formats.config in taken else taken[0]


def secrets(config: dict[str, Any], folder: Path | None) -> dict[str, Path]:
    """Path in the container → file, for the secrets in `folder` that the config asks for.

    As on Baseten: no other secret gets in, and one that is not set is simply absent.
    """
    names = list(config.get("secrets") or {})
    if names and folder is None:
        raise CannotServeError(
            f"config.yaml asks for the secret {', '.join(names)}: put the value in a file of that "
            "name, and name its folder with SECRETS=. SOURCE=bdn needs none"
        )
    if folder is None:
        return {}
    if not folder.is_dir():
        raise CannotServeError(f"SECRETS={str(folder)!r} is not a folder with a file per secret")
    return {f"/secrets/{name}": folder / name for name in names if (folder / name).is_file()}


def local_variables() -> dict[str, str]:
    """The variables for runs on this machine, from local/environment.yaml."""
    found: dict[str, str] = yaml.safe_load(LOCAL_ENVIRONMENT.read_text(encoding="utf-8"))
    return found


def environment(config: dict[str, Any], plugins: bool = True) -> dict[str, str]:
    """The config's variables, then those of the local run, with or without local/cpu."""
    local = local_variables()
    if not plugins:
        local.pop("VLLM_WORKER_MULTIPROC_METHOD")
    if tensor_parallel_size(config) > 1:
        local.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    own = config.get("environment_variables") or {}
    path = ":".join(filter(None, [own.get("PYTHONPATH"), LOCAL if plugins else None]))
    return {**own, **local, "PYTHONPATH": path}


def tensor_parallel_size(config: dict[str, Any]) -> int:
    command = config["docker_server"]["start_command"]
    return int(argument(command, "--tensor-parallel-size") or 1)


def check_precision(config: dict[str, Any]) -> None:
    """`CannotServeError` for a precision that only a GPU supports."""
    if method := argument(config["docker_server"]["start_command"], "--quantization"):
        raise CannotServeError(
            f"--quantization {method} needs a GPU, and here vLLM runs on the CPU; "
            "use PRECISION=bf16 or fp16 here (make config and make push take the others)"
        )


def workers_of(value: str | None) -> int | None:
    """TP= as a number; None if there are as many workers as GPUs."""
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", value):
        raise CannotServeError(f"TP={value!r} is not a number of workers; use TP=1 or TP=2")
    return int(value)


def check_workers(config: dict[str, Any], as_it_is: bool = False) -> None:
    """`CannotServeError` for more workers than a stand-in can be divided among; their number is TP=
    or, without it, the number of GPUs. A config that is run `as_it_is` takes no TP=."""
    workers = tensor_parallel_size(config)
    advice = f"use TP={max(WORKERS)} here, whatever the number of GPUs"
    if as_it_is:
        advice = "run it by the choices in its first lines, with "
        advice += f"TP={max(WORKERS)}, in place of CONFIG=1"
    if workers not in WORKERS:
        raise CannotServeError(
            f"{workers} workers do not divide a stand-in's KV heads, as "
            f"{', '.join(map(str, WORKERS))} do; {advice}"
        )


def is_ready(url: str = URL) -> bool:
    try:
        with DIRECTLY.open(f"{url}{READY}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def run(image: Image, say: Callable[[str], None], when_ready: Callable[[], None]) -> int:
    """Runs the container until it ends or a signal ends it; returns 0 if it was asked to stop."""
    asked: list[float] = []  # times of stop signals, in seconds
    running: list[sandbox.Container] = []
    ready = False

    def stop(number: int, frame: FrameType | None) -> None:
        # The first signal asks, a later one forces. One within a second is the same one: a signal
        # to a process group arrives directly, and again from make. Until the container is ready
        # there is nothing to wait for: no request runs, and files in CACHE= are complete or absent.
        # A SIGTERM in supervisord's first second is lost: supervisord forwards it to a process it
        # has just forked, where supervisord's own handler still catches it until exec.
        now = time.monotonic()
        if asked and now - asked[0] < 1:
            return
        for container in running:
            container.signal(signal.SIGTERM if ready and not asked else signal.SIGKILL)
        if not asked:
            say(f"stopping, {STOP_SECONDS} s at most" if ready else "stopping")
        asked.append(now)

    for number in SIGNALS:
        signal.signal(number, stop)
    container = sandbox.start(
        image.files, image.mounts, image.environment, image.command, image.writable
    )
    running.append(container)
    if asked:  # during its start
        container.signal(signal.SIGKILL)
    started = time.monotonic()
    log = threading.Thread(target=_copy_log, args=(container.process.stdout,))
    log.start()
    try:
        spoken = started
        while container.process.poll() is None:
            now = time.monotonic()
            if asked and now - asked[0] > STOP_SECONDS:
                container.signal(signal.SIGKILL)
            if not ready and not asked:
                if ready := is_ready(image.url):
                    say(f"ready after {now - started:.0f} s")
                    when_ready()
                elif now - spoken >= SAY_EVERY_SECONDS:
                    spoken = now
                    say(f"waiting for vLLM, {now - started:.0f} s")
            time.sleep(0.2)
    finally:
        container.signal(signal.SIGKILL)
        container.process.wait()
        log.join()
    if asked:
        say("stopped")
        return 0
    raise CannotServeError(
        f"the container ended {'after' if ready else 'before'} it was ready; its log says why"
    )


def _copy_log(pipe: Any) -> None:
    try:
        for line in pipe:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except OSError:  # nobody reads our output any more, and a blocked log would block vLLM
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in pipe:
            pass

"""The older ways of bench/peers, each in a process of its own here, without Docker.

Promises: what runs is Truss's own Python server as Truss's builder lays it out, with the peer's
`model.py`, on a port of its own; ready means that Truss's readiness route answers 200. Nothing is
left: no process, no folder. Refuses a peer that does not start.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import processes
from bench.errors import BenchError
from bench.figures import DTYPE
from scripts import serve
from scripts.cards import ROOT

FOLDER = ROOT / "bench" / "peers"
START_SECONDS = 400


@dataclass(frozen=True)
class Peer:
    """A Truss of bench/peers, its port here, and the body of a request for a stream of text: of a
    prompt, the most tokens, and whether all of them, past the model's own end, are wanted."""

    name: str
    folder: str
    port: int
    body: Callable[[str, int, bool], dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def readiness(self) -> str:
        return f"{self.url}/v1/models/model"

    @property
    def predict(self) -> str:
        return f"{self.readiness}:predict"


@dataclass
class Running:
    peer: Peer
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> None:
        """Until it is ready; `BenchError` with the reason from its log when it will not be."""
        started = time.monotonic()
        while not serve.is_ready(self.peer.readiness):
            if self.process.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise BenchError(f"{self.peer.name} did not start: {reason(self.log)}")
            time.sleep(0.5)


def reason(log: Path) -> str:
    """The last line of a log that names an error, or the last there is."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if "Error" in line), "".join(lines[-1:]))[-500:]


@contextlib.contextmanager
def started(peer: Peer, checkpoint: Path) -> Iterator[Running]:
    """A peer that is starting, with the weights of `checkpoint`; ended with the block."""
    serve.check_machine({peer.name: peer.port})
    # short: vLLM's sockets are in it, and the path of a socket is
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        lay_out(FOLDER / peer.folder, folder / "app")
        config = yaml.safe_load((folder / "app" / "config.yaml").read_text(encoding="utf-8"))
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "main.py"],
                cwd=folder / "app",
                env=environment(config, peer.port, checkpoint, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield Running(peer, process, log)
        finally:
            end(process)


def lay_out(truss: Path, app: Path) -> None:
    """A Truss as its image has it in /app: Truss's server, the model and the config in one folder.
    `app` must not be there yet."""
    os.environ.setdefault("TRUSS_NO_UPDATE_CHECK", "1")
    from truss.contexts.image_builder.serving_image_builder import ServingImageBuilderContext

    with tempfile.TemporaryDirectory(prefix="truss-context-") as name:
        context = Path(name)
        ServingImageBuilderContext.run(truss).prepare_image_build_dir(context)
        os.rename(context / "server", app)
        for part in ("model", "config.yaml"):
            os.rename(context / part, app / part)


def environment(
    config: Mapping[str, Any], port: int, checkpoint: Path, folder: Path
) -> dict[str, str]:
    """The variables of a peer's process: its config's, those of every local run of vLLM if it runs
    vLLM, and what differs here."""
    local = {}
    if "vllm" in config["requirements"]:
        local = yaml.safe_load(serve.LOCAL_ENVIRONMENT.read_text(encoding="utf-8"))
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        **(config.get("environment_variables") or {}),
        **local,
        "PEER_MODEL": str(checkpoint),
        "PEER_DTYPE": DTYPE,
        "INFERENCE_SERVER_PORT": str(port),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, held or not."""
    pids = processes.family(process.pid)
    processes.send(pids, signal.SIGKILL)
    process.wait()
    while any(map(processes.is_alive, pids)):  # or they would write where all is removed next
        time.sleep(0.01)

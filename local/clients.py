"""Real clients, pinned in their own environments, run against a container on this machine.

Promises: an environment is built once for its pins, by uv or by venv and pip, and by npm; the
program of a client (tests/clients) gets only the container's address and the model; the result of
each step is compared with the stand-ins' answers. Refuses to run if something is not installed,
and names it.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.errors import CommandError
from deploy.paths import ROOT

PROGRAMS = ROOT / "tests" / "clients"
CACHE = ROOT / ".cache" / "clients"
SECONDS = 300  # for all steps of one client
# The clients in `make test`; langchain has the agents that langchain-openai's program uses.
TESTED = ("openai", "anthropic", "mistralai", "langchain-openai", "litellm", "langchain")
# The part of the stand-ins' answers that shows that a step worked.
WIND = "strong, cold wind"
WEATHER = "It is 14 degrees in Genoa, and the mistral blows."
EXPECTED = {
    **dict.fromkeys(("plain", "stream", "responses", "mistral"), WIND),
    **dict.fromkeys(("tool", "tool_stream", "history", "responses_tool", "mistral_tool"), WEATHER),
    **dict.fromkeys(("image", "image_responses"), "The image is red."),
    "forced": "get_weather",
}
# The features to try with every client, as far as its program supports them.
WANTED = ("plain", "stream", "tool", "tool_stream", "structured", "history", "image")


class ClientsError(CommandError):
    """An environment that cannot be built."""


@dataclass(frozen=True)
class Client:
    language: str  # "python" or "node"
    name: str
    package: str
    use: str  # the lines of code that point the client at the container

    @property
    def program(self) -> Path:
        name = self.name if self.language == "node" else self.name.replace("-", "_")
        return (
            PROGRAMS / self.language / f"use_{name}{'.mjs' if self.language == 'node' else '.py'}"
        )


@dataclass(frozen=True)
class Step:
    name: str
    came: str | None
    failed: str | None

    @property
    def right(self) -> bool:
        """Whether the answer is the model's for exactly this prompt; or, if no stand-in was trained
        on the prompt, such as the text agents add, whether there was an answer."""
        came = self.failed is None and self.came is not None
        return came and EXPECTED.get(self.name, "") in str(self.came)


def clients() -> list[Client]:
    found = yaml.safe_load((PROGRAMS / "clients.yaml").read_text(encoding="utf-8"))
    return [
        Client(language, name, row.get("package", name), row["use"].rstrip())
        for language, rows in found.items()
        for name, row in rows.items()
    ]


def python(packages: Sequence[str] | None = None) -> Path:
    """The interpreter of an environment with these packages, by default those of all clients."""
    pins = PROGRAMS / "requirements.txt"
    wanted = sorted(packages or ())
    key = hashlib.sha256(f"{wanted} {sys.version}".encode() + pins.read_bytes()).hexdigest()[:12]
    folder = CACHE / f"python-{key}"
    interpreter = folder / "bin" / "python"
    if (folder / "whole").exists():
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    names = ["-c", str(pins), *wanted] if wanted else ["-r", str(pins)]
    try:
        uv = _uv()  # seconds, pip takes a minute; but uv does not read all of pip's settings
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(interpreter), *names)
    except ClientsError:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(interpreter), "-m", "pip", "install", "--quiet", *names)
    (folder / "whole").touch()
    return interpreter


def _uv() -> str:
    """uv, from this machine or as fetched by set-up (scripts/setup.py)."""
    fetched = sorted(str(path) for path in (ROOT / ".cache").glob("uv-*/bin/uv"))
    if found := shutil.which("uv") or next(reversed(fetched), None):
        return found
    raise ClientsError("uv is not installed")


def node() -> Path | None:
    """The folder with Node's packages; None if Node is not installed."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        return None
    lock = PROGRAMS / "node" / "package-lock.json"
    folder = CACHE / f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PROGRAMS / "node" / name, folder)
        _run(npm, "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
        (folder / "whole").touch()
    for program in (PROGRAMS / "node").glob("*.mjs"):
        shutil.copy(program, folder)  # Node looks for packages next to the program
    return folder


def _run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise ClientsError(f"{' '.join(command[:4])} … failed: {said}")


def versions(interpreter: Path) -> dict[str, str]:
    """Versions of the installed Python packages, by name in lower case."""
    code = (
        "import importlib.metadata as m, json;"
        "name = lambda one: one.metadata['Name'].lower().replace('_', '-');"
        "print(json.dumps({name(one): one.version for one in m.distributions()}))"
    )
    found = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout))


def node_versions() -> dict[str, str]:
    package = json.loads((PROGRAMS / "node" / "package.json").read_text())
    return dict(package["dependencies"])


def red() -> str:
    """A plain red image, as a data URL."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def not_run(steps: Sequence[Step]) -> list[str]:
    """The features of `WANTED` that a client did not try. A command-line run counts as one."""
    names = [step.name for step in steps]
    if "headless" in names:
        return []
    return [one for one in WANTED if not any(one in (name, name.split("_")[-1]) for name in names)]


def run(
    client: Client, runtime: Path, url: str, model: str, image: str = "", seconds: float = SECONDS
) -> list[Step]:
    """The result of each step. `runtime`: the interpreter, or the folder with Node's packages."""
    if client.language == "node":
        command = [shutil.which("node") or "node", str(runtime / client.program.name)]
    else:
        command = [str(runtime), "-W", "ignore", str(client.program)]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "BASE_URL": url,
        "MODEL": model,
        "IMAGE": image,
        "NO_PROXY": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds
        )
        out, err = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        out = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        err = f"not finished after {seconds:.0f} s"
    steps = [_step(json.loads(line)) for line in out.splitlines() if line.startswith('{"step"')]
    if not steps or "not finished" in err:
        steps.append(Step("start" if not steps else "end", None, err.strip()[-300:] or "nothing"))
    return steps


def _step(said: dict[str, Any]) -> Step:
    return Step(said["step"], said.get("came"), said.get("failed"))

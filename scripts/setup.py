"""Builds .venv with uv, from pins with hashes, in one of two sizes, and installs system programs.

Promises: an existing environment is reused and costs no time; the whole one is added to a complete
one to deploy, which commands may be using; a set-up that was killed or failed never counts as
complete, because the stamp is written last, and the next one starts afresh; two at once wait for
each other; nothing is installed into the user's own Python. If pip is configured with an index or
find-links, uv gets the same. Standard library only, and Python 3.9: this runs before there is an
environment.
Refuses, with the command to run, a machine that lacks a program, or that vLLM's CPU build does not
support.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.errors import CommandError
from deploy.paths import ROOT
from local.machine import SEARCH_PATH, SYSTEM_PROGRAMS
from scripts.options import DEPLOY, WHOLE

VENV = (ROOT / ".venv").resolve()
STAMP = VENV / "made-from"
COMPILED = VENV / "compiled"  # written once the modules of a start have their bytecode
CACHE = VENV.parent / ".cache"  # beside .venv, so that sharing .venv shares the lock
REQUIREMENTS = ROOT / "requirements"
UV = REQUIREMENTS / "uv.txt"
LOCKS = {DEPLOY: REQUIREMENTS / "deploy.txt", WHOLE: REQUIREMENTS / "whole.txt"}
TORCH = REQUIREMENTS / "torch.txt"  # separate, as it comes from another index
LOCAL_VLLM = ROOT / "local" / "vllm"

# Python versions: those Truss is tested with; the one in Baseten's image and vLLM's pins.
PYTHONS = {DEPLOY: [(3, 10), (3, 11), (3, 12), (3, 13)], WHOLE: [(3, 11)]}

# The modules a container's start imports, 5,500 of 25,000 files. Importing them compiles them.
IMPORTED = [
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.openai.responses.serving",
    "vllm.entrypoints.openai.completion.serving",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.tool_parsers.mistral_tool_parser",
    "vllm.renderers.mistral",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.core.sched.async_scheduler",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.mistral",
    "vllm.model_executor.models.mixtral",
    "vllm.model_executor.models.pixtral",
    "xgrammar",
    "supervisor.supervisord",
]
COMPILE = """
import contextlib, importlib, pathlib, sys
stamp, *names = sys.argv[1:]
made = pathlib.Path(stamp).with_name("pyvenv.cfg")
for name in names:
    if not made.exists():  # somebody has removed .venv
        sys.exit()
    with contextlib.suppress(Exception):
        importlib.import_module(name)
if made.exists():
    pathlib.Path(stamp).touch()
"""


class SetupError(CommandError):
    """What is missing and how to fix it."""


def stamp(environment: str) -> str:
    """The inputs of an environment, and its place: the programs in it contain their path."""
    digest = hashlib.sha256(f"{VENV}\n".encode() + LOCKS[environment].read_bytes())
    if environment == WHOLE:
        for path in sorted(path for path in LOCAL_VLLM.glob("*.*") if path.is_file()):
            digest.update(path.read_bytes())
        digest.update(TORCH.read_bytes())
    return f"{environment} {digest.hexdigest()}\n"


def is_made(environment: str) -> bool:
    """Whether .venv has all that is needed; the whole environment also serves to deploy."""
    try:
        made = STAMP.read_text(encoding="utf-8")
    except OSError:
        return False
    # its Python is a symlink, whose target may have been upgraded
    return made in {stamp(environment), stamp(WHOLE)} and (VENV / "bin" / "python").exists()


def ready(environment: str) -> None:
    """Sets up what is missing."""
    if environment == WHOLE:
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise SetupError(
                f"this needs vLLM, whose CPU build is pinned for Linux on x86-64, not "
                f"{sys.platform} on {platform.machine()}; the commands that deploy work here"
            )
        system_packages()
    if not is_made(environment):
        with _alone():
            if not is_made(environment):  # the set-up we waited for may have made it
                _make(environment)
    if environment == WHOLE and not COMPILED.exists() and compile_beside():
        say("vLLM is compiled to bytecode in the background; until that ends, it starts slower\n")


def _make(environment: str) -> None:
    started = time.monotonic()
    added = can_be_added(environment)
    with contextlib.suppress(FileNotFoundError):
        STAMP.unlink()
    uv = find_uv()
    options, variables = uv_settings(pip_settings())
    install: list[str | Path] = [uv, "pip", "install", "--python", VENV, "--no-deps"]
    locked = [*install, "--require-hashes"]
    if not added:
        clear_remains()
        with _step("Python"):
            run([uv, "venv", "--clear", "--python", python_for(environment), VENV], variables)
    with _step("vLLM and Truss" if environment == WHOLE else "Truss"):
        run([*locked, *options, "-r", LOCKS[environment]], variables)
    if environment == WHOLE:
        with _step(TORCH.read_text(encoding="utf-8").split()[0]):
            install_torch(locked, options, variables)
            run([*install, "--no-build-isolation", "--no-index", LOCAL_VLLM], variables)
    STAMP.write_text(stamp(environment), encoding="utf-8")
    say(f".venv is ready after {time.monotonic() - started:.0f} s\n")


def can_be_added(environment: str) -> bool:
    """Whether .venv needs only more packages: those that it has are the same in both sizes."""
    folders = (f"python{major}.{minor}" for major, minor in PYTHONS[environment])
    return is_made(DEPLOY) and any((VENV / "lib" / folder).is_dir() for folder in folders)


def clear_remains() -> None:
    """Deletes bytecode that was written while .venv was removed: uv clears only environments."""
    if (VENV / "pyvenv.cfg").exists():
        return
    if all(path.suffix == ".pyc" for path in VENV.rglob("*") if not path.is_dir()):
        shutil.rmtree(VENV, ignore_errors=True)


def compile_beside() -> subprocess.Popen[bytes] | None:
    """Compiles the modules that the container imports to bytecode, because it mounts .venv
    read-only, in a process that runs beside the training of a stand-in; None if one already does.
    It holds the lock, so no other set-up removes .venv meanwhile. A start before it ends is slower,
    but correct; if it is killed, the next command resumes it."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return subprocess.Popen(
            # -I: ignore PYTHON variables, which could turn bytecode off
            [VENV / "bin" / "python", "-I", "-c", COMPILE, COMPILED, *IMPORTED],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
        )


TRUST = "--allow-insecure-host="


def install_torch(
    install: list[str | Path], options: list[str], variables: Mapping[str, str]
) -> None:
    """Installs the CPU build, from pip's own index or find-links if configured; else from PyTorch's
    index, which uv knows."""
    run_first([[*install, *way, "-r", TORCH] for way in ways_to_torch(options)], variables)


def ways_to_torch(options: list[str]) -> list[list[str]]:
    """uv's options for torch's CPU build, which PyPI does not have: where pip looks comes first."""
    trusted = [option for option in options if option.startswith(TRUST)]
    return [*([options] if options != trusted else []), ["--torch-backend=cpu", *trusted]]


def python_for(environment: str) -> str:
    """The Python for the environment: this one, or one that uv finds or downloads."""
    if sys.version_info[:2] in PYTHONS[environment]:
        return sys.executable
    least, most = PYTHONS[environment][0], PYTHONS[environment][-1]
    return f">={least[0]}.{least[1]},<{most[0]}.{most[1] + 1}"


def find_uv() -> Path:
    """uv, if installed and no older than the pinned one, or else the pinned one, from pip."""
    wanted = re.search(r"uv==(\S+)", UV.read_text(encoding="utf-8"))[1]  # type: ignore[index]
    if found := shutil.which("uv"):
        said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        if (has := re.search(r"\d+(\.\d+)+", said)) and _version(has[0]) >= _version(wanted):
            return Path(found)
    folder = CACHE / f"uv-{wanted}"
    program = folder / "bin" / "uv"
    if not program.exists():
        if subprocess.run([*pip(), "--version"], capture_output=True).returncode:
            raise SetupError(
                f"uv is needed, and {pip()[0]} has no pip to install it with. Install uv, or pip "
                "(on Debian and Ubuntu: sudo apt-get install python3-pip)"
            )
        draft = CACHE / ".uv"
        shutil.rmtree(draft, ignore_errors=True)
        with _step(f"uv {wanted}"):
            words = [*pip(), "install", "--quiet"]
            words += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
            words += ["--require-hashes", "-r", UV, "--target", draft]
            # the settings for the user's own installations must not apply to --target
            own = {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore"}
            run(words, own)
        os.replace(draft, folder)
    return program


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def pip() -> list[str | Path]:
    """pip's command: this Python's or, as .venv has no pip, that of the Python it is based on."""
    has_it = importlib.util.find_spec("pip") is not None
    return [sys.executable if has_it else sys._base_executable, "-m", "pip"]  # type: ignore[attr-defined]


def pip_settings() -> dict[str, str]:
    """pip's settings by name: from its files, overridden by PIP_ variables."""
    words = [*pip(), "config", "list"]
    listed = subprocess.run(words, capture_output=True, text=True).stdout
    return parse_pip_settings(listed)


def parse_pip_settings(listed: str) -> dict[str, str]:
    """Parses `pip config list`: lines like global.find-links='/wheels'."""
    found: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        if match := re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(.*)", line):
            with contextlib.suppress(ValueError, SyntaxError):
                found.setdefault(match[1], {})[match[2]] = str(ast.literal_eval(match[3]))
    return {**found.get("global", {}), **found.get("install", {}), **found.get(":env:", {})}


def uv_settings(pip: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Options and variables that make uv search where pip does; empty if pip is not configured."""
    options = [f"--default-index={pip['index-url']}"] if "index-url" in pip else []
    options += [f"--index={url}" for url in pip.get("extra-index-url", "").split()]
    options += [f"--find-links={place}" for place in pip.get("find-links", "").split()]
    options += (
        ["--no-index"] if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    )
    if options:  # as pip does: the best version of all indexes. Hashes ensure the right file.
        options.append("--index-strategy=unsafe-best-match")
    options += [f"{TRUST}{host}" for host in pip.get("trusted-host", "").split()]
    variables = {"SSL_CERT_FILE": pip["cert"]} if "cert" in pip else {}
    return options, variables


def system_packages() -> None:
    missing = [
        package
        for program, package in SYSTEM_PROGRAMS.items()
        if shutil.which(program, path=SEARCH_PATH) is None
    ]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"missing: {', '.join(missing)}. Run: sudo {' '.join(command)}")
    # RUNLEVEL keeps the installation from starting nginx as a service on port 80
    variables = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with _alone(), _step(f"{', '.join(missing)} with apt-get"):
        run(["apt-get", "update", "-qq"], variables)
        run(command, variables)


def say(text: str) -> None:
    print(f"[setup] {text}", end="", flush=True)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """A line of progress: the step, and its seconds."""
    started = time.monotonic()
    say(f"{what} … ")
    try:
        yield
    except BaseException as error:
        print("stopped" if isinstance(error, KeyboardInterrupt) else "failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def run(words: Sequence[str | Path], variables: Mapping[str, str]) -> None:
    """Runs a program silently; shows its output if it fails."""
    run_first([words], variables)


def run_first(ways: Sequence[Sequence[str | Path]], variables: Mapping[str, str]) -> None:
    """Runs the first of the commands that succeeds. Each also holds the lock of `_alone`."""
    said = ""
    for words in ways:
        text = [str(word) for word in words]
        done = subprocess.run(
            text,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            close_fds=False,  # Python makes none of its files inheritable except the lock
        )
        if done.returncode == 0:
            return
        said += f"\n$ {' '.join(text)}\n{done.stdout.rstrip()}"
    raise SetupError(f"this failed; what it said is why:{said}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One set-up at a time; the lock ends with the last process that holds it, however it ends."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running; waiting for it\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), True)
        yield

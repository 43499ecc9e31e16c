"""Sets up what a fresh machine lacks: nginx, bubblewrap and curl, and .venv with everything pinned.

Promises: run again it changes nothing and takes no time; an environment that is half installed is
never taken for a whole one. Needs only the standard library, for it runs before .venv exists.
Refuses, with one line that says what to run, when a system package is missing and it is not root.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from deploy.errors import CommandError
from deploy.paths import ROOT
from local.machine import SEARCH_PATH, SYSTEM_PROGRAMS

VENV = (ROOT / ".venv").resolve()
STAMP = VENV / "installed-from"
CONSTRAINTS = ROOT / "local" / "constraints.txt"

# CUDA builds that vLLM's distribution asks for; this project serves no audio
UNUSED = ["torchaudio", "torchcodec"]

TORCH_CPU_INDEX_VARIABLE = "TORCH_CPU_INDEX"


class SetupError(CommandError):
    """What is missing and what to do about it."""


def pins() -> list[str]:
    """The pinned requirements of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [str(pin) for pin in project["dependencies"]]


def fingerprint() -> str:
    """A hash of what the environment is made from, and of where: its programs name their path."""
    digest = hashlib.sha256(f"{sys.version} {VENV} {pins()}".encode())
    local = [path for path in (ROOT / "local" / "vllm").glob("*.*") if path.is_file()]
    for path in [CONSTRAINTS, *sorted(local)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def run(*command: str | Path) -> None:
    words = [str(word) for word in command]
    if subprocess.run(words).returncode:
        raise SetupError(f"this failed, and its output above says why: {' '.join(words)}")


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
    say(f"installing {', '.join(missing)} with apt-get")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    os.environ["RUNLEVEL"] = "1"  # installs nginx without starting it as a service on port 80
    run("apt-get", "update", "-qq")
    run(*command)


def environment() -> None:
    """Builds .venv, unless it is there and made from the same pins."""
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    say("building .venv: about 4 GB, a few minutes")
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", VENV)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--progress-bar", "off", "--constraint", str(CONSTRAINTS)]
    torch = next(pin for pin in pins() if pin.startswith("torch=="))
    say(f"1/4 {torch}, the CPU build")
    _install_torch(install, torch)
    say("2/4 vLLM, Truss and the tools")
    run(*install, *pins())
    say("3/4 the local vllm distribution")
    run(*pip, "install", "--progress-bar", "off", "--no-deps", ROOT / "local" / "vllm")
    say("4/4 removing what is not used")
    run(*pip, "uninstall", "--yes", *UNUSED)
    STAMP.write_text(wanted)
    say(f".venv is ready after {time.monotonic() - started:.0f} s")


def _install_torch(install: list[str], torch: str) -> None:
    """The CPU build comes from wherever pip is set up to find it, or from PyTorch's own CPU index.

    That index is asked for torch alone: in front of the whole install every package would be
    looked up there too. Its address is PyTorch's documented one, in the environment variable
    TORCH_CPU_INDEX.
    """
    local_build = f"{torch}+cpu"
    install = [*install, "--no-deps"]  # the next step brings those, from where pip usually looks
    if subprocess.run([*install, local_build]).returncode == 0:
        return
    index = os.environ.get(TORCH_CPU_INDEX_VARIABLE)
    if not index:
        raise SetupError(
            f"pip does not find {local_build}. Set {TORCH_CPU_INDEX_VARIABLE} to PyTorch's package "
            "index for CPU builds (its installation page names it under Compute Platform: CPU) "
            "and run this again"
        )
    run(*install, "--index-url", index, local_build)


def ready(environment_name: str) -> None:
    """Sets up what is missing. For now all commands need the whole environment."""
    system_packages()
    environment()

"""The machine, commit and versions that figures come from.

Promises: the name of the commit says if tracked files of `sources` have changed since.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.config import vllm_version
from deploy.paths import ROOT
from local.machine import SEARCH_PATH


def commit(sources: Sequence[str] = (".",)) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *sources)
    return f"{git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {name}, {memory:.0f} GiB, {platform.system()}"


def versions() -> str:
    import aiohttp

    program = shutil.which("nginx", path=SEARCH_PATH) or "nginx"
    nginx = subprocess.run([program, "-v"], capture_output=True, text=True).stderr
    return (
        f"vLLM {vllm_version()}, nginx {nginx.strip().rpartition('/')[2]}, "
        f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}"
    )

"""Runs the test suite, or a part of it: tests/unit, tests/platform or tests/container."""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from deploy import cards
from deploy.errors import UsageError
from deploy.paths import ROOT
from local.standins.cache import ensure_all
from scripts.command import command

# What uses no fixed port, and so runs on every core at once; and what needs the machine for itself.
SIDE_BY_SIDE = ("unit", "platform")
ALONE = ("container", "clients")


def runs(layer: str | None, model: str | None, cores: int) -> list[list[str]]:
    """The arguments of pytest, of one run after the other."""
    if model and layer != "container":
        raise UsageError("MODEL= chooses among the tests in the container; add LAYER=container")
    chosen = [layer] if layer else [*SIDE_BY_SIDE, *ALONE]
    folders = [f"tests/{name}" for name in chosen if (ROOT / "tests" / name).is_dir()]
    first = [folder for folder in folders if folder.removeprefix("tests/") in SIDE_BY_SIDE]
    then = [folder for folder in folders if folder not in first]
    spread = [f"--numprocesses={cores}", "--dist=worksteal"] if cores > 1 else []
    only = [f"--model={model}"] if model else []
    return [
        words
        for words in ([*first, *spread] if first else [], [*then, *only] if then else [])
        if words
    ]


@command("test")
def main(options: argparse.Namespace) -> int:
    cores = len(os.sched_getaffinity(0)) if find_spec("xdist") else 1
    wanted = runs(options.layer, options.model, cores)
    if options.layer != "unit":
        ensure_all([cards.load(options.model)] if options.model else cards.load_all())
    with tempfile.TemporaryDirectory() as folder:
        # the table at the end of the last run has the times of all
        table = f"--timings={Path(folder) / 'timings.json'}"
        pytest = [sys.executable, "-m", "pytest", table]
        codes = [subprocess.run([*pytest, *words], cwd=ROOT).returncode for words in wanted]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())

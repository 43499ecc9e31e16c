"""Runs the test suite, or a part of it: tests/unit, tests/platform or tests/container."""

import argparse
import subprocess
import sys

from deploy import cards
from deploy.errors import UsageError
from deploy.paths import ROOT
from local.standins.cache import ensure
from scripts.command import command


def arguments(layer: str | None, model: str | None) -> list[str]:
    """Of pytest."""
    if model and layer != "container":
        raise UsageError("MODEL= chooses among the tests in the container; add LAYER=container")
    return [f"tests/{layer}" if layer else "tests", *(["-k", model] if model else [])]


@command("test")
def main(options: argparse.Namespace) -> int:
    words = arguments(options.layer, options.model)
    models = [cards.load(options.model)] if options.model else cards.load_all()
    if options.layer != "unit":
        for card in models:
            ensure(card)
    return subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Checks format, style and types; every card's config builds and vLLM takes its flags."""

import argparse
import subprocess
import sys

from deploy.paths import ROOT
from scripts.command import command

# Every card renders, builds and parses, and its outside dependencies exist.
CARDS = (
    "tests/unit/test_cards.py",
    "tests/unit/test_cards_complete.py",
    "tests/unit/test_docs.py",
    "tests/platform/test_config.py",
)
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest", "-q", "--tb=line", *CARDS),
)


@command("check")
def main(options: argparse.Namespace) -> int:
    for words in CHECKS:
        print(*words, flush=True)
        if code := subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

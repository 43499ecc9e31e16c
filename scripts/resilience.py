"""Runs the tests of load, faults and hostile input, which write docs/resilience.md."""

import argparse
import sys

from deploy import cards
from deploy.paths import ROOT
from local.standins.cache import ensure_all
from scripts.command import command

TESTS = (
    "test_bad_requests",
    "test_hostile_images",
    "test_image_memory",
    "test_surroundings",
    "test_load",
    "test_unread",
    "test_faults",
    "test_without_nginx",
    "test_neighbours",
    "test_long_prompts",
    "test_soak",
)
SOAK_SECONDS = 600


@command("resilience")
def main(options: argparse.Namespace) -> int:
    ensure_all(cards.load_all())
    import pytest

    files = [str(ROOT / "tests" / "container" / f"{name}.py") for name in TESTS]
    return int(
        pytest.main(
            [*files, f"--soak={SOAK_SECONDS}", f"--resilience={ROOT / 'docs' / 'resilience.md'}"]
        )
    )


if __name__ == "__main__":
    sys.exit(main())

"""Runs the tests of load, faults and hostile input, which write docs/resilience.md.

Promises: text written there by hand, between its two marks, is kept.
"""

import argparse
import sys

from deploy import cards
from deploy.paths import ROOT
from local.standins.cache import ensure_all
from scripts.command import command

TESTS = (  # of tests/container
    "test_bad_requests.py",
    "test_hostile_images.py",
    "test_image_memory.py",
    "test_surroundings.py",
    "test_load.py",
    "test_unread.py",
    "test_faults.py",
    "test_adapters.py::test_a_killed_engine_breaks_off_a_legacy_stream_and_waits_for_no_client",
    "test_without_nginx.py",
    "test_neighbours.py",
    "test_long_prompts.py",
    "test_soak.py",
)
SOAK_SECONDS = 600


@command("resilience")
def main(options: argparse.Namespace) -> int:
    ensure_all(cards.load_all())
    import pytest

    files = [str(ROOT / "tests" / "container" / name) for name in TESTS]
    return int(
        pytest.main(
            [*files, f"--soak={SOAK_SECONDS}", f"--resilience={ROOT / 'docs' / 'resilience.md'}"]
        )
    )


if __name__ == "__main__":
    sys.exit(main())

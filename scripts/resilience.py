"""Runs the tests of load, faults and hostile input, which write docs/resilience.md."""

import argparse
import sys

from deploy.paths import ROOT

TESTS = ("test_bad_requests", "test_hostile_images", "test_load", "test_faults")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make resilience", description=__doc__)
    parser.parse_args(arguments)
    import pytest

    files = [str(ROOT / "tests" / "container" / f"{name}.py") for name in TESTS]
    return int(pytest.main([*files, f"--resilience={ROOT / 'docs' / 'resilience.md'}"]))


if __name__ == "__main__":
    sys.exit(main())

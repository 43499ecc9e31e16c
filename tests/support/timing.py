"""The table at the end of a test run: seconds by layer, container starts, the slowest tests.

Promises: a test's seconds are those of its set-up, call and tear-down, in whichever process it ran.
With --timings=FILE a run adds its own to that file, and `python -m tests.support.timing FILE` shows
the table of all; for concurrent runs of a layer the wall time is the longest's.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import turns
from tests.support.layers import LAYERS, layer_of

TITLE = "where the time went"
SLOWEST = 15
_starts: list[dict[str, Any]] = []


@contextmanager
def container_start(model: str) -> Iterator[None]:
    """The block starts a container and ends when it is ready, or when the test has what it needs
    from it."""
    with turns.given_up():  # the container's time excludes the wait for the next turn
        started = time.monotonic()
        try:
            yield
        finally:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
            seconds = time.monotonic() - started
            _starts.append({"test": test, "model": model, "seconds": seconds})


@dataclass
class Timings:
    """The times of one run, or several: seconds of wall time by layer, of work by test."""

    wall: dict[str, float] = field(default_factory=dict)
    tests: dict[str, float] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Timings":
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)))

    def add_to(self, path: Path) -> None:
        """Adds this run to those in a file; others may do so concurrently."""
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            whole = Timings.read(path) + self if path.stat().st_size else self
            whole.write(path)

    def __add__(self, other: "Timings") -> "Timings":
        wall = {**self.wall, **other.wall}
        for layer in self.wall.keys() & other.wall.keys():  # they ran concurrently
            wall[layer] = max(self.wall[layer], other.wall[layer])
        return Timings(wall, {**self.tests, **other.tests}, self.starts + other.starts)

    def table(self) -> list[str]:
        lines = ["layer        tests  seconds of tests"]
        for layer in LAYERS:
            times = [took for name, took in self.tests.items() if layer_of(name) == layer]
            if times:
                lines.append(f"{layer:<12} {len(times):>5}  {sum(times):>16.0f}")
        walls = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.wall.items())
        lines.append(f"wall time: {walls}; together {sum(self.wall.values()):.0f} s")
        if self.starts:
            whole = sum(start["seconds"] for start in self.starts)
            lines += ["", f"{len(self.starts)} container starts, {whole:.0f} s until ready:"]
            for start in sorted(self.starts, key=lambda start: -start["seconds"]):
                lines.append(f"{start['seconds']:>8.1f}  {start['model']:<14} {start['test']}")
        files: dict[str, float] = {}
        for name, took in self.tests.items():
            file = name.partition("::")[0]
            files[file] = files.get(file, 0.0) + took
        for title, seconds in {"files": files, "tests": self.tests}.items():
            slowest = sorted(seconds.items(), key=lambda item: -item[1])[:SLOWEST]
            lines += ["", f"slowest {title}:", *(f"{took:>8.1f}  {name}" for name, took in slowest)]
        return lines


class TimingPlugin:
    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.run = Timings(starts=_starts)
        self.started = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.run.tests.get(report.nodeid, 0.0)  # its set-up was reported before
        self.run.tests[report.nodeid] = before + report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):  # a pytest-xdist worker
            session.config.workeroutput["starts"] = _starts

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.run.starts += getattr(node, "workeroutput", {}).get("starts", [])

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        # a pytest-xdist worker also has a summary, which is not shown: writing it to the file would
        # count it twice
        if not self.run.tests or hasattr(config, "workerinput"):
            return
        found = {layer_of(name) for name in self.run.tests}
        layers = [layer for layer in LAYERS if layer in found]
        self.run.wall["+".join(layers)] = time.monotonic() - self.started
        if self.file:
            self.run.add_to(self.file)
            return
        terminalreporter.section(TITLE)
        for line in self.run.table():
            terminalreporter.write_line(line)


if __name__ == "__main__":
    print(f" {TITLE} ".center(80, "="), *Timings.read(Path(sys.argv[1])).table(), sep="\n")

"""docs/resilience.md, written by the tests themselves while they do to a container what it lists.

Promises: a row says what was done and what was seen in this run; a test that failed has none, and
the page names it and what it found; what stands in the page that was there between `BY_HAND` and
`END` is kept as it is. Without --resilience=FILE rows are collected and dropped.
"""

import time
from pathlib import Path

import pytest

from bench.machine import commit, machine
from deploy.config import vllm_version

SECTIONS = (
    "Bad requests",
    "Bad images",
    "Load",
    "Costly requests",
    "A client that leaves",
    "An engine that hangs",
    "A part that is killed",
    "A stop",
    "Surroundings that fail",
    "A soak",
)
HEAD = """\
# Resilience

What was done to the local container, through nginx, and what was seen. The tests do it and check
it; `make resilience` writes their results here. Nothing here was run on Baseten or on a GPU.
"""
# Between them stands what the figures mean, which no test can say.
BY_HAND = "<!-- by hand: kept by make resilience; read it again beside new figures -->"
END = "<!-- end of by hand -->"


class Report:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
        self.failed: list[str] = []

    def row(self, section: str, done: str, seen: str) -> None:
        """What a test did and what it saw, in a section of `SECTIONS`; a test that is repeated
        replaces its row."""
        self.rows[section][done] = seen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message.partition("\n")[0] if crash else report.when
            self.failed.append(f"- `{report.nodeid.rpartition('/')[2]}`: `{why}`")

    def page(self, by_hand: str = "\n") -> str:
        about = f"Machine: {machine()}. vLLM {vllm_version()} on CPU, stand-ins for the weights, "
        about += f"commit {commit()}, {time.strftime('%Y-%m-%d')}."
        lines = [HEAD, about, "", f"{BY_HAND}{by_hand}{END}"]
        if self.failed:
            lines += ["", "**Tests of this run failed; what they did is missing here:**", ""]
            lines += self.failed
        for section, rows in self.rows.items():
            if rows:
                lines += ["", f"## {section}", "", "| what was done | what was seen |", "|---|---|"]
                lines += [f"| {done} | {seen} |" for done, seen in rows.items()]
        return "\n".join(lines) + "\n"

    def write(self, to: Path) -> None:
        before = to.read_text(encoding="utf-8") if to.is_file() else ""
        kept = before.partition(BY_HAND)[2].partition(END)[0] or "\n"
        to.write_text(self.page(kept), encoding="utf-8")

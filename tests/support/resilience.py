"""docs/resilience.md, written by the tests themselves while they do what it lists to a container.

Promises: a row says what was done and what was seen in this run; a test that failed has none, and
the page names it and its error; the existing text between `BY_HAND` and `END` in the page is kept.
Without --resilience=FILE rows are collected and dropped.
"""

import time
from pathlib import Path

import pytest

from bench.machine import commit, machine
from deploy.config import vllm_version
from deploy.markdown import row, table

TITLES = ("what was done", "what was seen")
# Section → headings of its table.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Bad requests": TITLES,
    "Bad images": TITLES,
    "Load": TITLES,
    "Costly requests": (
        "clients send, without a pause",
        "model",
        "TTFT of a neighbour alone, ms",
        "beside them: median",
        "longest",
        "answers, by status",
    ),
    "Other waits": TITLES,
    "A client that leaves": TITLES,
    "An engine that hangs": TITLES,
    "A part that is killed": TITLES,
    "A stop": TITLES,
    "Surroundings that fail": TITLES,
    "A soak": TITLES,
}
HEAD = """\
# Resilience

What was done to the local container, through nginx, and what was seen. The tests do it and check
it; `make resilience` writes their results here. Nothing here was run on Baseten or on a GPU.
A neighbour is one more client, who asks a short question again and again meanwhile; TTFT is the
time to its first token.
"""
# The text between them explains the figures, which no test can do.
BY_HAND = "<!-- by hand: kept by make resilience; read it again beside new figures -->"
END = "<!-- end of by hand -->"


class Report:
    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
        self.failed: list[str] = []

    def row(self, section: str, done: str, *seen: object, key: str = "") -> None:
        """Adds what a test did and what it saw, the cells of a section of `SECTIONS`; a repeated
        test replaces its row, by `done` and `key`."""
        self.rows[section][done + key] = row(done, *seen)

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
                lines += ["", f"## {section}", "", table(SECTIONS[section], rows.values())]
        return "\n".join(lines) + "\n"

    def write(self, to: Path) -> None:
        before = to.read_text(encoding="utf-8") if to.is_file() else ""
        kept = before.partition(BY_HAND)[2].partition(END)[0] or "\n"
        to.write_text(self.page(kept), encoding="utf-8")

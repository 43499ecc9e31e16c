"""Decides which tests may run at once, if several processes share them.

Promises: a test marked `undisturbed` runs while no other test does; only tests marked `patient`,
and those without a container, run alongside one marked `busy`; the others run in parallel. The
queue is in order, so no test waits for ever; a `busy` one waits outside of it, until no other test
needs a spare core. Only a test's call takes a turn: containers start and stop alongside anything,
and a test that starts one in its call gives up its turn meanwhile. After `share()` others may run
alongside the rest of an undisturbed test.
"""

import fcntl
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.layers import layer_of

MARK = "undisturbed"  # measures time
BUSY = "busy"  # needs all cores for minutes; measures only ratios that are far from their bounds
PATIENT = "patient"  # needs no spare core, as trials of constraints do

# How each kind of test holds the locks, which are files.
Turn = dict[str, int]
ALONE: Turn = {"room": fcntl.LOCK_EX}
BUSILY: Turn = {"room": fcntl.LOCK_SH, "spare": fcntl.LOCK_EX}
PATIENTLY: Turn = {"room": fcntl.LOCK_SH}
USUAL: Turn = {"room": fcntl.LOCK_SH, "spare": fcntl.LOCK_SH}
KINDS = {MARK: ALONE, BUSY: BUSILY, PATIENT: PATIENTLY}


def has(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None


def turn_of(item: pytest.Item) -> Turn:
    usual = USUAL if layer_of(item.nodeid) == "container" else PATIENTLY
    return next((turn for mark, turn in KINDS.items() if has(item, mark)), usual)


def undisturbed(item: pytest.Item) -> bool:
    return has(item, MARK)


def ends_container(item: pytest.Item) -> bool:
    return has(item, "ends_container")


def shares(item: pytest.Item) -> str | None:
    """The name of the test's shared container."""
    parameters = getattr(item, "callspec", None)
    return parameters.params.get("container") if parameters else None


def group_of(item: pytest.Item) -> str:
    """The name of the test's shared container, or else of its file."""
    return shares(item) or item.nodeid.partition("::")[0]


class Turns:
    """The turns of one process. `folder`: shared by all processes."""

    def __init__(self, folder: Path) -> None:
        names = ("door", "room", "spare")
        self.locks = {name: os.open(folder / name, os.O_CREAT | os.O_RDWR) for name in names}
        self.held: Turn | None = None
        self.waited = 0.0  # seconds, since a test's last phase

    def take(self, turn: Turn) -> None:
        if self.held != turn:
            self.give_up()
            began = time.monotonic()
            if spare := turn.get("spare"):  # may take minutes: before the door, to block nobody
                fcntl.flock(self.locks["spare"], spare)
            fcntl.flock(self.locks["door"], fcntl.LOCK_EX)  # later tests queue behind this one
            fcntl.flock(self.locks["room"], turn["room"])
            fcntl.flock(self.locks["door"], fcntl.LOCK_UN)
            self.held = turn
            self.waited += time.monotonic() - began

    def give_up(self) -> None:
        for name in self.held or ():
            fcntl.flock(self.locks[name], fcntl.LOCK_UN)
        self.held = None

    def share(self) -> None:
        fcntl.flock(self.locks["room"], fcntl.LOCK_SH)  # ahead of those that wait to be alone
        self.held = PATIENTLY

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.take(turn_of(item))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Excludes the wait for a turn from a test's seconds."""
        report = yield
        report.duration -= self.waited
        self.waited = 0.0
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Several in a row share one turn: each may take less time than the wait for another."""
        same = nextitem and undisturbed(nextitem) and group_of(nextitem) == group_of(item)
        if not (undisturbed(item) and same):
            self.give_up()


_turns: Turns | None = None  # None: this process is the only one


def arrange(folder: Path) -> Turns:
    global _turns
    _turns = Turns(folder)
    return _turns


def share() -> None:
    """Others may run alongside the rest of the test, unless undisturbed. Does not wait."""
    if _turns and _turns.held == ALONE:
        _turns.share()


@contextmanager
def given_up() -> Iterator[None]:
    """The block runs without a turn."""
    held = _turns.held if _turns else None
    if not _turns or held is None:
        yield
        return
    _turns.give_up()
    try:
        yield
    finally:
        _turns.take(held)

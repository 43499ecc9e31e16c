"""Which tests may run at once, where several processes have a container each.

Promises: a test marked `undisturbed` runs while no other test does; the others run beside each
other. Who waits comes next, so nobody waits for ever. Only a test's call takes a turn: containers
start and stop beside anything, and one that starts within a call gives its turn up meanwhile.
"""

import fcntl
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MARK = "undisturbed"


def undisturbed(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None


def ends_container(item: pytest.Item) -> bool:
    return item.get_closest_marker("ends_container") is not None


def shares(item: pytest.Item) -> str | None:
    """The name of its shared container."""
    parameters = getattr(item, "callspec", None)
    return parameters.params.get("container") if parameters else None


def group_of(item: pytest.Item) -> str:
    """The name of its shared container, or else of its file."""
    return shares(item) or item.nodeid.partition("::")[0]


class Turns:
    """The turns of one process. `folder`: the same for all of them."""

    def __init__(self, folder: Path) -> None:
        names = ("door", "room")
        self.door, self.room = (os.open(folder / name, os.O_CREAT | os.O_RDWR) for name in names)
        self.held: int | None = None
        self.waited = 0.0  # seconds, since a test's last phase

    def take(self, how: int) -> None:
        """`how`: LOCK_EX for a turn alone, LOCK_SH for one beside others."""
        if self.held != how:
            self.give_up()
            began = time.monotonic()
            fcntl.flock(self.door, fcntl.LOCK_EX)  # who comes later waits behind us
            fcntl.flock(self.room, how)
            fcntl.flock(self.door, fcntl.LOCK_UN)
            self.held = how
            self.waited += time.monotonic() - began

    def give_up(self) -> None:
        fcntl.flock(self.room, fcntl.LOCK_UN)
        self.held = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.take(fcntl.LOCK_EX if undisturbed(item) else fcntl.LOCK_SH)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A test's seconds are its own."""
        report = yield
        report.duration -= self.waited
        self.waited = 0.0
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Several in a row have one turn, for each may take less than the wait for another."""
        same = nextitem and undisturbed(nextitem) and group_of(nextitem) == group_of(item)
        if not (undisturbed(item) and same):
            self.give_up()


_turns: Turns | None = None  # None: this process is the only one


def arrange(folder: Path) -> Turns:
    global _turns
    _turns = Turns(folder)
    return _turns


@contextmanager
def given_up() -> Iterator[None]:
    """The block needs no turn."""
    held = _turns.held if _turns else None
    if not _turns or held is None:
        yield
        return
    _turns.give_up()
    try:
        yield
    finally:
        _turns.take(held)

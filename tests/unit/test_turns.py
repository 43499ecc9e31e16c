"""A test that watches time runs while no other does, in whatever process."""

import fcntl
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import turns
from tests.support.timing import container_start
from tests.support.turns import (
    ALONE,
    BUSY,
    MARK,
    PATIENT,
    PATIENTLY,
    USUAL,
    Turn,
    Turns,
    turn_of,
)


def free(folder: Path, name: str, how: int) -> bool:
    """Whether another process could have this lock now."""
    with (folder / name).open() as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def item(alone: bool, container: str = "mistral-7b") -> Any:
    return marked(MARK if alone else "", container)


def marked(mark: str, container: str = "mistral-7b") -> Any:
    return SimpleNamespace(
        get_closest_marker=lambda name: True if name == mark else None,
        callspec=SimpleNamespace(params={"container": container}),
        nodeid="tests/container/test_a.py::test_b",
    )


def call(process: Turns, test: Any) -> None:
    steps = process.pytest_runtest_call(test)
    next(steps)
    next(steps, None)


def test_tests_run_beside_each_other_and_an_undisturbed_one_waits_for_them(tmp_path: Path) -> None:
    one, two, watching, late = (Turns(tmp_path) for _ in range(4))
    for process in (one, two):
        process.take(USUAL)
    order: list[str] = []

    def run(process: Turns, turn: Turn, name: str) -> None:
        process.take(turn)
        order.append(name)
        process.give_up()

    first = Thread(target=run, args=(watching, ALONE, "undisturbed"))
    first.start()
    while free(tmp_path, "door", fcntl.LOCK_EX):
        pass  # until it waits
    second = Thread(target=run, args=(late, USUAL, "who came later"))
    second.start()
    for process in (one, two):
        order.append("beside")
        process.give_up()
    first.join()
    second.join()
    assert order == ["beside", "beside", "undisturbed", "who came later"]


def test_undisturbed_tests_of_a_container_have_one_turn(tmp_path: Path) -> None:
    process, test = Turns(tmp_path), item(alone=True)
    for following, kept in (
        (test, True),
        (item(alone=False), False),
        (item(alone=True, container="pixtral-12b"), False),
        (None, False),
    ):
        call(process, test)
        assert not free(tmp_path, "room", fcntl.LOCK_SH)
        process.pytest_runtest_teardown(test, following)
        assert free(tmp_path, "room", fcntl.LOCK_SH) is not kept
    call(process, item(alone=False))
    assert free(tmp_path, "room", fcntl.LOCK_SH)
    assert not free(tmp_path, "room", fcntl.LOCK_EX)
    process.pytest_runtest_teardown(item(alone=False), test)
    assert free(tmp_path, "room", fcntl.LOCK_EX)


def test_a_busy_test_has_patient_ones_beside_it_and_no_others(tmp_path: Path) -> None:
    busy, patient, usual = Turns(tmp_path), Turns(tmp_path), Turns(tmp_path)
    call(busy, marked(BUSY))
    waiting = Thread(target=usual.take, args=(USUAL,))
    waiting.start()
    time.sleep(0.1)  # until it waits
    call(patient, marked(PATIENT))  # waits for nothing, not behind one that does either
    for mark in (MARK, BUSY, ""):
        locks = turn_of(marked(mark)).items()
        assert not all(free(tmp_path, name, how) for name, how in locks), mark
    busy.pytest_runtest_teardown(marked(BUSY), marked(BUSY))
    waiting.join()
    usual.give_up()
    assert all(free(tmp_path, name, how) for name, how in USUAL.items())
    assert not all(free(tmp_path, name, how) for name, how in ALONE.items())
    patient.give_up()
    assert all(free(tmp_path, name, how) for name, how in ALONE.items())


def test_a_test_without_a_container_needs_no_spare_core() -> None:
    without = SimpleNamespace(
        get_closest_marker=lambda name: None, nodeid="tests/platform/test_a.py::test_b"
    )
    assert turn_of(without) == PATIENTLY  # type: ignore[arg-type]
    assert turn_of(marked("")) == USUAL


def test_a_test_s_seconds_are_without_its_wait(tmp_path: Path) -> None:
    process, other = Turns(tmp_path), Turns(tmp_path)
    other.take(ALONE)
    waiting = Thread(target=call, args=(process, item(alone=True)))
    waiting.start()
    while free(tmp_path, "door", fcntl.LOCK_EX):
        pass  # until it waits
    other.give_up()
    waiting.join()
    waited = process.waited
    assert waited > 0
    for seconds in (waited + 5.0, 5.0):
        report = SimpleNamespace(duration=seconds)
        steps: Any = process.pytest_runtest_makereport(item(alone=True), None)  # type: ignore
        next(steps)
        with pytest.raises(StopIteration):
            steps.send(report)
        assert report.duration == pytest.approx(5.0)


def test_a_container_that_starts_needs_no_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_turns", None)
    monkeypatch.setattr("tests.support.timing._starts", [])
    with container_start("mistral-7b"):
        pass
    process = turns.arrange(tmp_path)
    process.take(ALONE)
    with container_start("mistral-7b"):
        assert free(tmp_path, "room", fcntl.LOCK_EX)
    assert not free(tmp_path, "room", fcntl.LOCK_SH)
    process.give_up()
    with container_start("mistral-7b"):
        pass
    assert free(tmp_path, "room", fcntl.LOCK_EX)


def test_the_rest_of_an_undisturbed_test_may_be_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_turns", None)
    turns.share()  # of one process
    process = turns.arrange(tmp_path)
    turns.share()  # by a test without a turn
    assert free(tmp_path, "room", fcntl.LOCK_EX)
    call(process, item(alone=True))
    turns.share()
    assert all(free(tmp_path, name, how) for name, how in USUAL.items())
    assert not free(tmp_path, "room", fcntl.LOCK_EX)
    process.pytest_runtest_teardown(item(alone=True), item(alone=True))
    call(process, item(alone=True))
    assert not free(tmp_path, "room", fcntl.LOCK_SH)
    other = Turns(tmp_path)
    waiting = Thread(target=other.take, args=(ALONE,))
    waiting.start()
    while free(tmp_path, "door", fcntl.LOCK_EX):
        pass  # until it waits
    turns.share()
    waiting.join(0.1)
    assert waiting.is_alive()
    process.give_up()
    waiting.join()
    other.give_up()

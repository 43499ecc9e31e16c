"""Turns are taken in vLLM's scheduler, and an error of theirs ends them and not the engine."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from predict import scheduling


class Scheduling:
    """The methods of vLLM's scheduler that are changed."""

    def schedule(self) -> str:
        return "a step"

    def _handle_blocked_waiting_request(self, request: Any) -> bool:
        return True

    def update_from_output(self, output: Any) -> str:
        return "updated"


class Turns(scheduling.SchedulerTurns):
    """They admit nobody, and fail at `fails`."""

    whose = "these"

    def __init__(self, fails: str | None = None) -> None:
        super().__init__()
        self.fails = fails
        self.seen: list[str] = []

    def note(self, name: str) -> None:
        self.seen.append(name)
        if name == self.fails:
            raise AttributeError("what a request said")

    def begin(self, scheduler: Any) -> None:
        self.note("begin")

    def admits(self, request: Any) -> bool:
        self.note("admits")
        return False

    def restore(self, scheduler: Any) -> None:
        self.seen.append("restore")

    def scheduled(self, scheduler: Any, output: Any) -> None:
        self.note("scheduled")

    def updated(self, output: Any) -> None:
        self.note("updated")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged. (pytest's own fixture is off in pyproject.toml.)"""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger().addHandler(handler)
    yield said
    logging.getLogger().removeHandler(handler)


def steps(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Two steps of a scheduler with these turns → whether who waits was admitted to the second."""

    class Own(Scheduling):
        pass

    monkeypatch.setattr(scheduling, "Scheduler", Own)
    scheduling.take_turns(turns)
    scheduler = Own()
    for _ in range(2):
        assert scheduler.schedule() == "a step"
        admitted = scheduler._handle_blocked_waiting_request(None)
        assert scheduler.update_from_output(None) == "updated"
    return admitted


def test_each_is_asked_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    assert not steps(turns, monkeypatch)
    assert turns.seen == ["begin", "restore", "scheduled", "admits", "updated"] * 2
    assert not turns.failed


@pytest.mark.parametrize("fails", ["begin", "admits", "scheduled", "updated"])
def test_an_error_ends_the_turns_and_not_the_engine(
    monkeypatch: pytest.MonkeyPatch, logged: io.StringIO, fails: str
) -> None:
    turns = Turns(fails)
    assert steps(turns, monkeypatch)
    assert turns.seen.count(fails) == 1
    assert turns.seen[turns.seen.index(fails) + 1 :] in (["restore"] * 2, ["restore"])
    assert "these take no turns any more: AttributeError" in logged.getvalue()
    assert "what a request said" not in logged.getvalue()

"""Shared by the parts of `make bench` that send requests: ways under loads, in rounds.

Promises: each round runs all ways of a point, in turn, and begins with another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.client import Bench
from bench.metrics import Load, Metrics, Round, Way, turned
from bench.session import Session


@dataclass(frozen=True)
class Point:
    load: Load
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Group:
    """Points by label, in the order of the tables; `name` is the group's in the JSON."""

    model: str
    name: str
    points: Mapping[str, Point]
    rounds: int = 3


def measure(bench: Bench, group: Group, session: Session) -> None:
    """Measures the rounds of a group that the session lacks."""
    if not session.lacks(group.name, group.rounds):
        return
    session.say(f"{group.name}: warming up")
    for point in group.points.values():
        bench.warm_up(point.ways, point.load)

    def one_round(number: int) -> dict[str, dict[str, Metrics]]:
        found = {}
        for label, point in group.points.items():
            session.say(f"{group.name}: round {number + 1} of {group.rounds}, {label}")
            found[label] = bench.under(turned(point.ways, number), point.load)
        return found

    session.each(group.name, group.rounds, one_round)


def measured(groups: Sequence[Group], session: Session) -> dict[str, list[Round]]:
    """The rounds of each group, by name."""
    return {group.name: session.done[group.name] for group in groups}


def lacking(groups: Sequence[Group], session: Session) -> list[Group]:
    return [group for group in groups if session.lacks(group.name, group.rounds)]


Results = Mapping[str, Any]

"""What single steps shorten a start by: a part of `make bench`.

Promises: as in bench/startup.py, the ways to start take turns.
"""

from typing import Any

from bench.figures import head, row, spread
from bench.session import Session
from bench.startup import CONTAINER, in_turn, seconds_of
from bench.startup_ways import Way, in_container, question, today
from scripts import cards
from scripts.cards import Card

ROUNDS = 5

PREPARED = "/packages/start"
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nowhere"}

SINGLE_TEXT = """\
What single steps are worth: taken away one at a time, or, the plugins, tried and dropped.
"""


def variations(card: Card) -> dict[str, Way]:
    """What single steps are worth: this Truss, and without one or with one more, by what it is."""
    asked, now = question(card), today(card)
    trusses = {
        CONTAINER: now,
        "without the model infos": now.without(f"{PREPARED}/modelinfos"),
        "without the rest of the garbage collector": now.without(f"{PREPARED}/sitecustomize.py"),
        "without Python's bytecode": now.with_variables(NO_BYTECODE),
        "with no plugins loaded, `VLLM_PLUGINS=`": now.with_variables({"VLLM_PLUGINS": ""}),
    }
    return {name: in_container(truss, asked) for name, truss in trusses.items()}


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    card = cards.load(model or cards.DEFAULT_MODEL)
    compared, rounds = variations(card), 1 if quick else ROUNDS
    with session.expecting(rounds, 30 * len(compared)):
        found = in_turn(session, "without a step", compared, rounds)
    return {"model": card.name, "rounds": seconds_of(found)}


def section(results: dict[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    return [
        "## What shortens a start",
        "",
        SINGLE_TEXT,
        *single_table(results["rounds"]),
    ]


def single_table(rounds: list[dict[str, float]]) -> list[str]:
    lines = head("this Truss", "seconds", "seconds more, a round")
    for name in rounds[0]:
        values = spread(done[name] for done in rounds).shown(1)
        more = spread(done[name] - done[CONTAINER] for done in rounds).shown(1)
        lines.append(row(name, values, "" if name == CONTAINER else more))
    return lines

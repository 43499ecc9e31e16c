"""From the start of the container to the first correct answer: a part of `make bench`.

Promises: the ways to start take turns, round by round. The page cache is as warm as earlier starts
have left it, for all alike; for a cold start it is emptied of what a start reads.
"""

from collections.abc import Mapping
from typing import Any

from bench.metrics import Bounds, head, row, spread, turned
from bench.plots import Bars, Plot, link
from bench.session import Session
from bench.startup_ways import (
    Start,
    Way,
    alone,
    cold,
    in_container,
    question,
    today,
    without_container,
)
from deploy import cards
from deploy.cards import Card

ROUNDS = 5
PLOT = "startup.svg"

CONTAINER = "this Truss in its container"
COMMAND = "its start command alone, in the same sandbox"
BARE = "bare `vllm serve`, same flags and variables"
COLD_CONTAINER = f"cold: {CONTAINER}"
COLD_BARE = f"cold: {BARE}"

# By the way that this Truss in its container is held against, cold against cold.
GOALS = {name: Bounds(most=1.05) for name in (BARE, COLD_BARE)}

PHASES_TEXT = """\
By the lines that supervisord and vLLM log as they go: a phase ends with its line, and what other
processes do meanwhile counts to it. Medians of the starts of a column, which need not add up to the
median of the whole. torch.compile is off in the local run. The other models start once.
"""

WAYS_TEXT = """\
The ways took turns, each with an empty cache of vLLM's, as a new replica has it. Cold is a start
for which the virtual environment, Python's standard library and the stand-in were taken out of the
page cache; the others find what earlier starts have read. Bare vLLM gets the start command's flags
and the same variables, without the sandbox, supervisord, nginx and `packages/start`. The start
command alone has `packages/start`: the difference to it is what supervisord and nginx take, and
supervisord waits a second before it starts anything. """


def ways(card: Card, session: Session) -> dict[str, Way]:
    """The ways to start a model that are compared, by name."""
    asked, now = question(card), today(card)
    found = {
        CONTAINER: in_container(now, asked),
        COMMAND: alone(now, asked),
        BARE: without_container(now, asked),
        COLD_CONTAINER: cold(in_container(now, asked), now),
        COLD_BARE: cold(without_container(now, asked), now),
    }
    return found


def in_turn(
    session: Session, what: str, compared: Mapping[str, Way], rounds: int
) -> list[dict[str, Start]]:
    """Each way once a round; another one begins each round."""

    def one_round(number: int) -> dict[str, Any]:
        found = {}
        for name in turned([*compared], number):
            session.doing(f"{what}: round {number + 1} of {rounds}, {name}")
            found[name] = vars(compared[name]())
        return found

    done = session.each(what, rounds, one_round)
    return [{name: Start(**begun) for name, begun in each.items()} for each in done]


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    model = model or cards.DEFAULT_MODEL
    compared = ways(cards.load(model), session)
    others: dict[str, Start] = {}
    if quick:
        with session.expecting(1, 60):
            few = {name: compared[name] for name in (CONTAINER, BARE)}
            rounds = in_turn(session, "starts", few, 1)
    else:
        more = [other for other in cards.load_all() if other.name != model]
        with session.expecting(ROUNDS + 2, 30 * len(compared)):
            also = {it.name: in_container(today(it), question(it)) for it in more}
            others = in_turn(session, "other models", also, 1)[0]
            rounds = in_turn(session, "starts", compared, ROUNDS)
    columns = {model: CONTAINER, f"{model}, cold": COLD_CONTAINER}
    return {
        "model": model,
        "phases": {
            **{
                column: [done[name].phases for done in rounds]
                for column, name in columns.items()
                if name in rounds[0]
            },
            **{name: [begun.phases] for name, begun in others.items()},
        },
        "rounds": seconds_of(rounds),
    }


def seconds_of(rounds: list[dict[str, Start]]) -> list[dict[str, float]]:
    return [{name: begun.seconds for name, begun in done.items()} for done in rounds]


def section(results: dict[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    return [
        "## From the start of the container to the first correct answer",
        "",
        PHASES_TEXT,
        *phase_table(results["phases"]),
        "",
        WAYS_TEXT,
        link("seconds to the first correct answer", PLOT),
        "",
        *way_table(results["rounds"]),
    ]


def phase_table(columns: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """The median of each phase over the starts of a column, in s, and of the whole."""
    names = list(next(iter(columns.values()))[0])
    lines = head("seconds", *columns)
    for name in names:
        medians = [spread(begun[name] for begun in starts).median for starts in columns.values()]
        lines.append(row(name, *(f"{median:.2f}" for median in medians)))
    wholes = [spread(sum(begun.values()) for begun in starts) for starts in columns.values()]
    lines.append(row("**to the first answer**", *(whole.shown(1) for whole in wholes)))
    return lines


def way_table(rounds: list[dict[str, float]]) -> list[str]:
    """Each way's seconds, and what of them this Truss in its container takes, cold of cold."""
    lines = head("way", "seconds", "this Truss in its container to it, a round", "goal", "")
    for name in rounds[0]:
        seconds = spread(done[name] for done in rounds).shown(1)
        ours = COLD_CONTAINER if name == COLD_BARE else CONTAINER
        if name in (CONTAINER, COLD_CONTAINER):
            lines.append(row(name, seconds, "", "", ""))
            continue
        found, goal = spread(done[ours] / done[name] for done in rounds), GOALS.get(name)
        told = (f"at most {goal.most}", goal.met(found)) if goal else ("", "")
        lines.append(row(name, seconds, found.shown(2), *told))
    return lines


def plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """Plots by the names of their files."""
    rounds = results["rounds"]
    bars = {name: spread(done[name] for done in rounds) for name in rounds[0]}
    return {PLOT: Plot(results["model"], (Bars("seconds to the first correct answer", bars),))}

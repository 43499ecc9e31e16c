"""What stands between a client and vLLM, and what it costs: a part of `make bench`.

Promises: one vLLM server a model, behind all ways to ask it; the ways take turns, round by round,
and at one stream request by request. Images are data URLs, and weigh what they are said to.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import backends, client, cpu, parsing
from bench.bypass import BARE as BARE_DOOR
from bench.client import VLLM, Bench
from bench.cpu import CPU, Meter
from bench.metrics import (
    DTYPE,
    Bounds,
    Figures,
    Load,
    Spread,
    Way,
    at,
    difference,
    figure_table,
    head,
    ratio,
    ratio_table,
    row,
    turned,
)
from bench.plots import Plot, link, throughput_and_ttft
from bench.session import Session
from deploy import cards
from deploy.cards import Card
from local.truss import URL

CHAT = client.CHAT

BARE = Way("bare vLLM", backends.CHAT, f"{VLLM}{BARE_DOOR}{CHAT}")
NGINX = Way("nginx", backends.CHAT, f"{URL}{BARE_DOOR}{CHAT}")
OPENAI = Way("nginx and the middleware, OpenAI format", backends.CHAT, f"{URL}{CHAT}")
OLDER = Way("nginx and the middleware, legacy format", backends.TEXT, f"{URL}/predict")
# As Pixtral's users ask. vLLM's backend wants to see the route it knows; a fragment is not sent.
PREDICT = Way("nginx and the middleware, /predict", backends.CHAT, f"{URL}/predict#{CHAT}")

ORDER = (BARE, NGINX, OPENAI, OLDER, PREDICT)


@dataclass(frozen=True)
class Plan:
    rounds: int
    loads: tuple[Load, ...]
    seconds: float  # of a round, about


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: prompts alone, or each with an image."""

    title: str
    ways: tuple[Way, ...]
    plan: Plan
    image_bytes: int = 0

    @property
    def loads(self) -> list[Load]:
        images = {"images": 1, "image_bytes": self.image_bytes} if self.image_bytes else {}
        return [replace(it, **images) for it in self.plan.loads]


TEXT_LOADS = (Load(1, 30, 16), Load(4, 32, 64), Load(16, 128, 128), Load(64, 256, 64))
SMALL_LOADS = (Load(1, 20, 8), Load(4, 32, 8), Load(16, 96, 8), Load(64, 128, 8))
LARGE_LOADS = (Load(1, 10, 8), Load(4, 16, 8), Load(16, 48, 8), Load(64, 64, 8))

TEXT = Kind("text", (BARE, NGINX, OPENAI, OLDER), Plan(5, TEXT_LOADS, 45))
PICTURED = (BARE, NGINX, OPENAI, PREDICT)
SMALL = Kind("an image of 10 KB", PICTURED, Plan(5, SMALL_LOADS, 40), 10_000)
LARGE = Kind("an image of 2 MB", PICTURED, Plan(5, LARGE_LOADS, 45), 2_000_000)

QUICK = Plan(3, (Load(1, 15, 8), Load(16, 64, 32)), 15)
QUICK_MODEL = "mistral-7b"


@dataclass(frozen=True)
class Goal(Bounds):
    """What a figure at so many streams is to be against bare vLLM's of the same round."""

    text: str
    figure: str
    streams: int
    against: str  # "ratio" or "difference"

    def of(self, rounds: Sequence[Mapping[str, Figures]], way: str) -> Spread:
        held = ratio if self.against == "ratio" else difference
        return held(rounds, way, BARE.name, self.figure)


GOALS = (
    Goal(
        "requests/s at 16 streams, ratio: at least 0.98", "requests_per_s", 16, "ratio", least=0.98
    ),
    Goal(
        "median TTFT at one stream, difference: at most 1 ms", "ttft_p50_ms", 1, "difference",
        most=1.0,
    ),
    Goal("p99 TTFT at 16 streams, ratio: at most 1.10", "ttft_p99_ms", 16, "ratio", most=1.10),
)  # fmt: skip


def kinds(card: Card) -> list[Kind]:
    return [SMALL, LARGE] if card.features.images else [TEXT]


def planned(model: str | None, quick: bool) -> list[tuple[Card, Kind]]:
    """What is measured of which model; `model` None is all of them."""
    if quick:
        card = cards.load(model or QUICK_MODEL)
        return [(card, replace(kinds(card)[0], plan=QUICK))]
    chosen = [cards.load(model)] if model else cards.load_all()
    return [(card, kind) for card in chosen for kind in kinds(card)]


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    every = planned(model, quick)
    rounds = sum(kind.plan.rounds for _, kind in every)
    seconds = sum(kind.plan.rounds * kind.plan.seconds for _, kind in every) / rounds
    with session.expecting(rounds, seconds):
        session.doing("reading bodies")
        bodies = parsing.measure(20 if quick else 100)
        for card, group in itertools.groupby(every, key=lambda pair: pair[0]):
            _measure(card, [kind for _, kind in group], session)
    return {
        "reading": bodies,
        "measured": [
            {
                "model": card.name,
                "kind": kind.title,
                "loads": [asdict(it) for it in kind.loads],
                "rounds": session.done[_name(card, kind)],
            }
            for card, kind in every
        ],
    }


def _name(card: Card, kind: Kind) -> str:
    return f"{card.name}, {kind.title}"


def _measure(card: Card, wanted: Sequence[Kind], session: Session) -> None:
    if not any(session.lacks(_name(card, kind), kind.plan.rounds) for kind in wanted):
        return
    bench = Bench(card, card.name)
    session.doing(f"{card.name}: starting vLLM")
    with client.server(card):
        bench.meter = Meter(cpu.family(os.getpid()))
        for kind in wanted:
            _measure_kind(bench, _name(card, kind), kind, session)


def _measure_kind(bench: Bench, name: str, kind: Kind, session: Session) -> None:
    if not session.lacks(name, kind.plan.rounds):
        return
    session.doing(f"{name}: warming up")
    for way in kind.ways:  # nothing is measured cold
        bench.run(way, replace(kind.loads[-1], requests=kind.loads[-1].streams))

    def one_round(number: int) -> dict[str, dict[str, Figures]]:
        found = {}
        for it in kind.loads:
            session.doing(f"{name}: round {number + 1} of {kind.plan.rounds}, {it.shown}")
            found[str(it.streams)] = client.under(bench, turned(kind.ways, number), it)
        return found

    session.each(name, kind.plan.rounds, one_round)


def ways_of(measured: Mapping[str, Any]) -> list[str]:
    """In the order of the tables."""
    there = next(iter(measured["rounds"][0].values()))
    return [way.name for way in ORDER if way.name in there]


TEXT_OF_PART = f"""\
One vLLM server a model, in {DTYPE}, measured by `vllm bench serve` through all ways in turn,
another one first in each round: its own port past the middleware (bare vLLM), Truss's nginx
before that, and nginx and the middleware of `packages/predict`. At one stream the ways take turns
request by request, at more after two requests a stream. Ratios and differences are of figures of
one round.
Images are small, 40 × 40 pixels; what makes a data URL of 2 MB large is a chunk of the file that
decoders pass over: it is the way of the bytes that is measured, not a model at a large picture.
Legacy streams have no events: their ITL is between pieces of text, and vLLM's client, which
reads events as JSON, has less to do for them, on the same cores. Events that a client reads at once
have an ITL of next to nothing: where many do, ratios of ITL say little.

Where a goal is missed, look at the rows of nginx alone: what they have lost already is Truss's own.
Its proxy.conf passes each event on by itself (`proxy_buffering off`), has no keep-alive to the
server, so that each request opens a connection there, and reads a large body whole before the
server gets any of it. Behind nginx the server takes more CPU time for the same work, too, for each
event wakes another process. All of it goes on beside the engine where that has a GPU, and here
takes the engine's cores. What the rows with the middleware lose beyond nginx's is ours.
"""


def section(results: Mapping[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    lines = [
        "## What stands before vLLM costs",
        "",
        TEXT_OF_PART,
        *goal_table(results["measured"]),
    ]
    for measured in results["measured"]:
        lines += ["", f"### {measured['model']}, {measured['kind']}", ""]
        lines += [link("throughput and TTFT over streams", plot_name(measured)), ""]
        lines += [f"{loads_shown(measured)}:", ""]
        rounds, ways = measured["rounds"], ways_of(measured)
        lines += figure_table(rounds, ways)
        lines += ["", "The same, held against bare vLLM in each round, as ratios:", ""]
        lines += ratio_table(rounds, "way", {way: (way, BARE.name) for way in ways[1:]})
        lines += ["", "CPU time, µs a token:", "", *figure_table(rounds, ways, CPU)]
    return [*lines, "", *reading_table(results["reading"])]


def loads_shown(measured: Mapping[str, Any]) -> str:
    each = [
        f"{it['requests']} of {it['new_tokens']} new tokens at {Load(**it).shown}"
        for it in measured["loads"]
    ]
    return f"{len(measured['rounds'])} rounds, each way in each {', '.join(each)}"


def goal_table(every: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = head("goal, against bare vLLM in the same round", "model", "way", "is", "")
    for goal in GOALS:
        for measured in every:
            for way in ways_of(measured):
                if way == BARE.name:
                    continue
                found = goal.of(at(measured["rounds"], goal.streams), way)
                what = f"{measured['model']}, {measured['kind']}"
                lines.append(row(goal.text, what, way, found.shown(3), goal.met(found)))
    return lines


def reading_table(bodies: Mapping[str, Any]) -> list[str]:
    return [
        "### Reading a body",
        "",
        "Time in the classes for one request, from the first chunk of the body to the call of",
        f"vLLM, in ms ({bodies['repeats']} times each):",
        "",
        *head("body", "bytes", "ms", "goal"),
        *(
            row(it["body"], f"{it['bytes']:,}", Spread(**it["ms"]).shown(3), it["goal"])
            for it in bodies["rows"]
        ),
    ]


def plot_name(measured: Mapping[str, Any]) -> str:
    kind = measured["kind"].removeprefix("an image of ").replace(" ", "-").lower()
    return f"overhead-{measured['model']}-{kind}.svg"


def plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """Plots by the names of their files."""
    return {plot_name(measured): over_streams(measured) for measured in results["measured"]}


def over_streams(measured: Mapping[str, Any]) -> Plot:
    panels = throughput_and_ttft(measured["rounds"], {way: way for way in ways_of(measured)})
    return Plot(f"{measured['model']}, {measured['kind']}", panels)

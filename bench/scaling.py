"""How cost grows with the prompt, the streams and the images: a part of `make bench`.

Promises: bare vLLM and this Truss, nginx and all, in turn, round by round, on one server a model;
memory, which a server mostly keeps, is that of a server of its own a way and a round.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import client
from bench.client import Bench
from bench.errors import BenchError
from bench.metrics import Figures, Load, at, head, of, ratio, row, turned
from bench.overhead import BARE, OPENAI
from bench.plots import Panel, Plot, link, panel, throughput_and_ttft
from bench.session import Session
from deploy import cards
from deploy.cards import Card
from local import processes

THROUGH = replace(OPENAI, name="through this Truss")
WAYS = (BARE, THROUGH)

# As many streams as are asked for, and none refused: the plan's own limits are a GPU's.
ROOM = {"--max-num-seqs": "256", "--max-num-queued-reqs": "320"}

SAMPLE_SECONDS = 0.05
MIB = 1024 * 1024


@dataclass(frozen=True)
class Sweep:
    """Loads that differ in one thing, `over`, an attribute of theirs."""

    title: str
    over: str
    axis: str
    loads: tuple[Load, ...]
    of_images: bool
    memory: bool = False  # of the front process; the loads are to grow
    rounds: int = 5
    seconds: float = 20  # of a round, about


PROMPTS = Sweep(
    "The prompt",
    "prompt_tokens",
    "prompt, tokens",
    (
        *(Load(1, 8, 8, length) for length in (16, 64, 256, 1024)),
        *(Load(1, 4, 8, length) for length in (4096, 8192)),
    ),
    of_images=False,
)
STREAMS = Sweep(
    "Streams",
    "streams",
    "streams",
    tuple(Load(count, max(16, 2 * count), 32) for count in (1, 4, 16, 64, 256)),
    of_images=False,
    seconds=25,
)
OPEN_STREAMS = Sweep(
    "Memory of the front process",
    "streams",
    "open streams",
    tuple(Load(count, count, 64) for count in (1, 64, 256)),
    of_images=False,
    memory=True,
    seconds=80,
)
IMAGES = Sweep(
    "Images",
    "images",
    "images of 10 KB a request",
    tuple(Load(1, 24, 8, images=count, image_bytes=10_000) for count in (1, 2, 3, 4)),
    of_images=True,
)
SWEEPS = (PROMPTS, STREAMS, OPEN_STREAMS, IMAGES)

# The models that are swept unless one is named: a text model, and the one with images.
DEFAULT_MODELS = ("mistral-7b", "pixtral-12b")

MEMORY = "memory_mib"


def planned(model: str | None, quick: bool) -> list[tuple[Card, Sweep]]:
    chosen = [cards.load(name) for name in ([model] if model else DEFAULT_MODELS)]
    return [
        (card, replace(sweep, rounds=2) if quick else sweep)
        for card in chosen
        for sweep in SWEEPS
        if sweep.of_images == (card.features.images > 0)
    ]


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    plan = planned(model, quick)
    rounds = sum(sweep.rounds for _, sweep in plan)
    seconds = sum(sweep.rounds * sweep.seconds for _, sweep in plan) / rounds
    with session.expecting(rounds, seconds):
        for card in dict.fromkeys(card.name for card, _ in plan):
            _measure(cards.load(card), [it for of, it in plan if of.name == card], session)
    return {
        "measured": [
            {
                "model": card.name,
                "sweep": sweep.title,
                "loads": [asdict(it) for it in sweep.loads],
                "rounds": session.done[_name(card, sweep)],
            }
            for card, sweep in plan
        ]
    }


def _name(card: Card, sweep: Sweep) -> str:
    return f"{card.name}, {sweep.title.lower()}"


def _measure(card: Card, sweeps: Sequence[Sweep], session: Session) -> None:
    wanted = [sweep for sweep in sweeps if session.lacks(_name(card, sweep), sweep.rounds)]
    if not wanted:
        return
    bench = Bench(card, card.name)
    in_turn = [sweep for sweep in wanted if not sweep.memory]
    if in_turn:
        session.doing(f"{card.name}: starting vLLM")
        with client.server(card, ROOM):
            for sweep in in_turn:
                name = _name(card, sweep)
                session.doing(f"{name}: warming up")
                for way in WAYS:  # nothing is measured cold
                    bench.run(way, sweep.loads[-1])
                session.each(name, sweep.rounds, _rounds(bench, name, sweep, session))
    for sweep in wanted:
        if sweep.memory:
            name = _name(card, sweep)
            session.each(name, sweep.rounds, _memory_rounds(bench, card, name, sweep, session))


Rounds = Callable[[int], dict[str, dict[str, Figures]]]


def _rounds(bench: Bench, name: str, sweep: Sweep, session: Session) -> Rounds:
    def one_round(number: int) -> dict[str, dict[str, Figures]]:
        found: dict[str, dict[str, Figures]] = {}
        for it in sweep.loads:
            point = str(getattr(it, sweep.over))
            session.doing(f"{name}: round {number + 1} of {sweep.rounds}, {sweep.axis}: {point}")
            found[point] = client.under(bench, turned(WAYS, number), it)
        return found

    return one_round


def _memory_rounds(bench: Bench, card: Card, name: str, sweep: Sweep, session: Session) -> Rounds:
    def one_round(number: int) -> dict[str, dict[str, Figures]]:
        found: dict[str, dict[str, Figures]] = {
            str(getattr(it, sweep.over)): {} for it in sweep.loads
        }
        for way in turned(WAYS, number):
            session.doing(f"{name}: round {number + 1} of {sweep.rounds}, {way.name}")
            with client.server(card, ROOM):
                for it in sweep.loads:
                    with most_memory() as seen:
                        bench.asked(way, it)
                    found[str(getattr(it, sweep.over))][way.name] = {MEMORY: max(seen) / MIB}
        return found

    return one_round


@contextmanager
def most_memory() -> Iterator[list[int]]:
    """Resident bytes of the API server, looked at again and again until the end of the block."""
    servers = processes.vllm_processes()
    if len(servers) != 1:
        raise BenchError(f"{len(servers)} processes are `vllm serve`, not one; end the others")
    file, page, seen = Path(f"/proc/{servers[0]}/statm"), os.sysconf("SC_PAGE_SIZE"), list[int]()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(int(file.read_text().split()[1]) * page)
            done.wait(SAMPLE_SECONDS)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def section(results: Mapping[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    lines = [
        "## How cost grows",
        "",
        "Bare vLLM past everything, and through nginx and the middleware, on the same server. So",
        "that 256 streams are served at once and none is refused, the server was started with",
        f"{' and '.join(f'`{flag} {value}`' for flag, value in ROOM.items())} in place of the",
        "plan's. Ratios are of figures of one round. The prompt and the images are swept at one",
        "stream, request by request in turn.",
    ]
    for measured in results["measured"]:
        sweep = swept(measured)
        lines += ["", f"### {sweep.title}: {measured['model']}", ""]
        what = "memory" if sweep.memory else "throughput and TTFT"
        lines += [link(f"{what} over {sweep.axis}", plot_name(measured)), ""]
        lines += [f"{len(measured['rounds'])} rounds.", ""]
        lines += memory_table(measured) if sweep.memory else table(measured)
    return lines


def swept(measured: Mapping[str, Any]) -> Sweep:
    return next(sweep for sweep in SWEEPS if sweep.title == measured["sweep"])


def table(measured: Mapping[str, Any]) -> list[str]:
    ways = [way.name for way in WAYS]
    titles = [f"{what}, {way}" for what in ("output tokens/s", "TTFT p50, ms") for way in ways]
    lines = head(swept(measured).axis, *titles, "ratio of tokens/s", "ratio of TTFT")
    for point in measured["rounds"][0]:
        rounds = at(measured["rounds"], point)
        cells = [of(rounds, way, "tokens_per_s").shown(0) for way in ways]
        cells += [of(rounds, way, "ttft_p50_ms").shown(1) for way in ways]
        cells += [
            ratio(rounds, THROUGH.name, BARE.name, figure).shown(2)
            for figure in ("tokens_per_s", "ttft_p50_ms")
        ]
        lines.append(row(f"{int(point):,}", *cells))
    return lines


def memory_table(measured: Mapping[str, Any]) -> list[str]:
    ways = [way.name for way in WAYS]
    lines = [
        "The most resident memory of the process that answers requests, `vllm serve`'s, in MiB,",
        "while so many streams are open. What it once took it mostly keeps: so each way has a new",
        "server in each round, and the streams grow.",
        "",
        *head("streams", *ways),
    ]
    for point in measured["rounds"][0]:
        rounds = at(measured["rounds"], point)
        lines.append(row(point, *(of(rounds, way, MEMORY).shown(0) for way in ways)))
    return lines


def plot_name(measured: Mapping[str, Any]) -> str:
    sweep = swept(measured)
    over = "memory" if sweep.memory else sweep.over.replace("_", "-")
    return f"scaling-{measured['model']}-{over}.svg"


def plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """Plots by the names of their files."""
    return {plot_name(measured): over(measured) for measured in results["measured"]}


def over(measured: Mapping[str, Any]) -> Plot:
    sweep = swept(measured)

    rounds, ways = measured["rounds"], {way.name: way.name for way in WAYS}
    if sweep.memory:
        memory = "memory of the front process, MiB"
        panels: tuple[Panel, ...] = (panel(memory, MEMORY, rounds, ways, sweep.axis),)
    else:
        panels = throughput_and_ttft(rounds, ways, sweep.axis, evenly=sweep.over == "images")
    return Plot(f"{measured['model']}: {sweep.title.lower()}", panels)

"""How cost grows with the prompt, the streams and the images: a part of `make bench`.

Promises: bare vLLM and this Truss, nginx and all, in turn, round by round, on one server a model.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import load
from bench.errors import BenchError
from bench.figures import Figures, Load, Way, head, of, ratio, row, spread, turned
from bench.load import Bench
from bench.path import BARE, OPENAI
from bench.plots import Panel, Plot, link
from bench.session import Session
from local import container
from scripts import cards
from scripts.cards import Card

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
    memory: bool = False  # of the front process, instead of turns request by request
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
    "Streams, and the memory of the front process",
    "streams",
    "streams",
    tuple(Load(count, max(16, 2 * count), 32) for count in (1, 4, 16, 64, 256)),
    of_images=False,
    memory=True,
    seconds=45,
)
IMAGES = Sweep(
    "Images",
    "images",
    "images of 10 KB a request",
    tuple(Load(1, 24, 8, images=count, image_bytes=10_000) for count in (1, 2, 3, 4)),
    of_images=True,
)
SWEEPS = (PROMPTS, STREAMS, IMAGES)

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
    session.doing(f"{card.name}: starting vLLM")
    with load.server(card, ROOM):
        for sweep in wanted:
            name = _name(card, sweep)
            session.doing(f"{name}: warming up")
            # Nothing is measured cold; but memory that 256 streams once took would stay.
            for way in WAYS:
                bench.run(way, sweep.loads[0 if sweep.memory else -1])
            one_round = _rounds(bench, name, sweep, session)
            session.each(name, sweep.rounds, one_round)


def _rounds(
    bench: Bench, name: str, sweep: Sweep, session: Session
) -> Callable[[int], dict[str, dict[str, Figures]]]:
    def one_round(number: int) -> dict[str, dict[str, Figures]]:
        found: dict[str, dict[str, Figures]] = {}
        for it in sweep.loads:
            at = str(getattr(it, sweep.over))
            session.doing(f"{name}: round {number + 1} of {sweep.rounds}, {sweep.axis}: {at}")
            ways = turned(WAYS, number)
            if sweep.memory:
                found[at] = {way.name: _with_memory(bench, way, it) for way in ways}
            else:
                found[at] = bench.in_turn(ways, it)
        return found

    return one_round


def _with_memory(bench: Bench, way: Way, under: Load) -> Figures:
    with most_memory() as seen:
        figures = bench.run(way, under)
    return {**figures, MEMORY: max(seen) / MIB}


@contextmanager
def most_memory() -> Iterator[list[int]]:
    """Resident bytes of the API server, looked at again and again until the end of the block."""
    processes = container.vllm_processes()
    if len(processes) != 1:
        raise BenchError(f"{len(processes)} processes are `vllm serve`, not one; end the others")
    file, page, seen = Path(f"/proc/{processes[0]}/statm"), os.sysconf("SC_PAGE_SIZE"), list[int]()
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
        "Bare vLLM past everything, and through nginx and the classes, on the same server. So that",
        "256 streams are served at once and none is refused, the server was started with",
        f"{' and '.join(f'`{flag} {value}`' for flag, value in ROOM.items())} in place of the",
        "plan's. Ratios are of figures of one round. The prompt and the images are swept at one",
        "stream, request by request in turn.",
    ]
    for measured in results["measured"]:
        sweep = swept(measured)
        lines += ["", f"### {sweep.title}: {measured['model']}", ""]
        lines += [link(f"throughput and TTFT over {sweep.axis}", plot_name(measured)), ""]
        lines += [f"{len(measured['rounds'])} rounds.", "", *table(measured)]
        if sweep.memory:
            lines += ["", *memory_table(measured)]
    return lines


def swept(measured: Mapping[str, Any]) -> Sweep:
    return next(sweep for sweep in SWEEPS if sweep.title == measured["sweep"])


def points(measured: Mapping[str, Any]) -> dict[str, list[dict[str, Figures]]]:
    """The rounds at each point of a sweep."""
    rounds = measured["rounds"]
    return {at: [done[at] for done in rounds] for at in rounds[0]}


def table(measured: Mapping[str, Any]) -> list[str]:
    ways = [way.name for way in WAYS]
    titles = [f"{what}, {way}" for what in ("output tokens/s", "TTFT p50, ms") for way in ways]
    lines = head(swept(measured).axis, *titles, "ratio of tokens/s", "ratio of TTFT")
    for at, rounds in points(measured).items():
        cells = [of(rounds, way, "tokens_per_s").shown(0) for way in ways]
        cells += [of(rounds, way, "ttft_p50_ms").shown(1) for way in ways]
        cells += [
            ratio(rounds, THROUGH.name, BARE.name, figure).shown(2)
            for figure in ("tokens_per_s", "ttft_p50_ms")
        ]
        lines.append(row(f"{int(at):,}", *cells))
    return lines


def memory_table(measured: Mapping[str, Any]) -> list[str]:
    ways = [way.name for way in WAYS]
    lines = [
        "The most resident memory of the process that answers requests, `vllm serve`'s, in MiB. It",
        "is one process for both ways, and what it once took it mostly keeps: the least is the",
        "first round's, when no more streams had ever been open.",
        "",
        *head("streams", *ways),
    ]
    for at, rounds in points(measured).items():
        lines.append(row(at, *(of(rounds, way, MEMORY).shown(0) for way in ways)))
    return lines


def plot_name(measured: Mapping[str, Any]) -> str:
    return f"growth-{measured['model']}-{swept(measured).over.replace('_', '-')}.svg"


def plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """Plots by the names of their files."""
    return {plot_name(measured): over(measured) for measured in results["measured"]}


def over(measured: Mapping[str, Any]) -> Plot:
    sweep = swept(measured)

    def panel(title: str, figure: str) -> Panel:
        lines = {
            way.name: {
                float(at): spread(done[way.name][figure] for done in rounds)
                for at, rounds in points(measured).items()
            }
            for way in WAYS
        }
        return Panel(title, sweep.axis, lines, evenly=sweep.over == "images")

    panels = [panel("output tokens/s", "tokens_per_s"), panel("median TTFT, ms", "ttft_p50_ms")]
    if sweep.memory:
        panels.append(panel("memory of the front process, MiB", MEMORY))
    return Plot(f"{measured['model']}: {sweep.title.lower()}", tuple(panels))

"""Compares this Truss with bare vLLM: a part of `make bench`.

Promises: one vLLM server per model, reached past the middleware and nginx (bare vLLM), through
nginx alone, and as this Truss is normally reached, in the OpenAI format and in the legacy format.
Images are data URLs of exactly the stated size.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import backends, cpu, parsing, part, servers
from bench.bypass import BARE as BYPASS
from bench.client import CHAT, Bench
from bench.metrics import DTYPE, Goal, Load, Spread, Way, at, difference, of, ratio
from bench.part import Group, Point, Results
from bench.plots import Plot, link, panel
from bench.session import Session
from deploy import cards
from deploy.cards import Card
from deploy.config import PORT
from deploy.markdown import row, table
from local.truss import NGINX_PORT, URL

BARE = Way("bare vLLM", backends.CHAT, f"http://127.0.0.1:{PORT}{BYPASS}{CHAT}")
NGINX = Way("nginx alone", backends.CHAT, f"{URL}{BYPASS}{CHAT}")
OURS = Way("this Truss", backends.CHAT, f"{URL}{CHAT}")
LEGACY = Way("this Truss, legacy format", backends.TEXT, f"{URL}/predict")
TEXT_WAYS = (BARE, NGINX, OURS, LEGACY)
IMAGE_WAYS = (BARE, NGINX, OURS)
PLOT = "overhead.svg"
MODELS = ("mistral-7b", "mixtral-8x7b", "pixtral-12b")  # measured unless one is named
REQUESTS = {1: 8, 4: 16, 16: 48, 64: 256, 256: 512}  # by streams
NEW_TOKENS, QUICK_TOKENS = 128, 32
MAIN = "mistral-7b, text"


def groups(model: str | None, quick: bool) -> list[Group]:
    """The measurements for each model; `model` None means MODELS."""
    found = []
    for card in map(cards.load, [model] if model else MODELS[: 1 if quick else None]):
        if card.features.images:
            for size, shown in ((10_000, "10 KB"), (2_000_000, "2 MB")):
                loads = [Load(1, 16, 8, images=1, image_bytes=size)]
                loads += [replace(loads[0], streams=16, requests=64)]
                found.append(_group(card, f"an image of {shown}", loads, IMAGE_WAYS))
        else:
            streams = REQUESTS if card.name == cards.DEFAULT_MODEL else (1, 16)
            loads = [Load(many, REQUESTS[many], NEW_TOKENS) for many in streams]
            found.append(_group(card, "text", loads, TEXT_WAYS))
    if not quick:
        return found
    few = {
        label: Point(
            replace(point.load, requests=2 * point.load.streams + 4, new_tokens=QUICK_TOKENS),
            point.ways,
        )
        for label, point in found[0].points.items()
        if label in ("1", "16")
    }
    return [replace(found[0], points=few, rounds=1)]


def _group(card: Card, kind: str, loads: Sequence[Load], ways: tuple[Way, ...]) -> Group:
    points = {
        str(load.streams): Point(load, ways if load.streams < 256 else (BARE, OURS))
        for load in loads
    }
    return Group(card.name, f"{card.name}, {kind}", points)


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    planned = groups(model, quick)
    bodies = parsing.measure(20 if quick else 100)
    for name in dict.fromkeys(group.model for group in part.lacking(planned, session)):
        card = cards.load(name)
        session.say(f"{name}: starting vLLM")
        truss = servers.truss(card, {**servers.ROOM, "--dtype": DTYPE}, bypassed=True)
        bench = Bench(card, name)
        with servers.started(servers.contained(truss), NGINX_PORT, card):
            bench.meter = cpu.Meter()
            for group in planned:
                if group.model == name:
                    part.measure(bench, group, session)
    measured = part.measured(planned, session)
    tokens = QUICK_TOKENS if quick else NEW_TOKENS
    return {"new_tokens": tokens, "measured": measured, "parsing": bodies}


GOALS = (
    # goal, metric, label of the point, comparison with bare vLLM
    (Goal("tokens/s at 1 stream ≥ 0.98", least=0.98), "tokens_per_s", "1", ratio),
    (Goal("tokens/s at 4 streams ≥ 0.98", least=0.98), "tokens_per_s", "4", ratio),
    (Goal("tokens/s at 16 streams ≥ 0.98", least=0.98), "tokens_per_s", "16", ratio),
    (Goal("tokens/s at 64 streams ≥ 1.05", least=1.05), "tokens_per_s", "64", ratio),
    (Goal("tokens/s at 256 streams ≥ 1.10", least=1.10), "tokens_per_s", "256", ratio),
    (Goal("median TTFT at 1 stream ≤ 1 ms more", most=1.0), "ttft_p50_ms", "1", difference),
    (Goal("median TTFT at 64 streams ≤ 1.2", most=1.2), "ttft_p50_ms", "64", ratio),
    (Goal("API server's CPU a token at 64 streams ≤ 0.6", most=0.6), cpu.API_SERVER, "64", ratio),
)


def goal_table(results: Results) -> str:
    rounds = results["measured"].get(MAIN, [])
    rows = []
    for goal, metric, label, against in GOALS:
        if rounds and label in rounds[0] and metric in rounds[0][label][OURS.name]:
            found = against(at(rounds, label), OURS.name, BARE.name, metric)
            rows.append(goal.row(MAIN, found))
    return table(["goal, against bare vLLM in the same round", "of", "is", ""], rows)


# Rows of the page's table, as group and point
ROWS = [(MAIN, label) for label in ("1", "4", "16", "64", "256")]
ROWS += [("mixtral-8x7b, text", "16")]
ROWS += [(f"pixtral-12b, an image of {size}", "16") for size in ("10 KB", "2 MB")]


def values(results: Results) -> dict[str, str]:
    """The values for the braces in bench/text/overhead.md."""
    measured = results["measured"]
    chosen = [(name, label) for name, label in ROWS if label in (measured.get(name) or [{}])[0]]
    if not chosen:  # another model, or a quick run
        chosen = [(name, label) for name, rounds in measured.items() for label in rounds[0]][:8]
    titles = ["requests", "streams", "bare vLLM, tokens/s", "this Truss", "legacy", "nginx alone"]
    titles += ["bare vLLM, TTFT p50, ms", "this Truss", "API server, µs/token", "this Truss"]
    rows = []
    for name, label in chosen:
        points = at(measured[name], label)
        cells: list[str] = [name, label, of(points, BARE.name, "tokens_per_s").shown(0)]
        for way in (OURS, LEGACY, NGINX):
            there = way.name in points[0]
            cells.append(_ratio(points, way, "tokens_per_s") if there else "")
        cells += [
            of(points, BARE.name, "ttft_p50_ms").shown(1),
            _ratio(points, OURS, "ttft_p50_ms"),
        ]
        if cpu.API_SERVER in points[0][BARE.name]:
            cells.append(of(points, BARE.name, cpu.API_SERVER).shown(0))
            cells.append(_ratio(points, OURS, cpu.API_SERVER))
        else:
            cells += ["", ""]
        rows.append(row(*cells))
    return {
        "table": table(titles, rows),
        "goals": goal_table(results),
        "plot": link("tokens/s, TTFT and the API server's CPU over streams", PLOT),
        "parsing": parsing_table(results["parsing"]),
        "new_tokens": str(results["new_tokens"]),
        **capacity(measured.get(MAIN) or next(iter(measured.values()))),
    }


def _ratio(points: Sequence[Any], way: Way, metric: str) -> str:
    return "× " + ratio(points, way.name, BARE.name, metric).shown(2)


def capacity(rounds: Sequence[Any]) -> dict[str, str]:
    """Tokens/s per core of the API server, and ratios, at 64 streams."""
    label = "64" if "64" in rounds[0] else list(rounds[0])[-1]
    points = at(rounds, label)
    gained = ratio(points, OURS.name, BARE.name, "tokens_per_s").median
    found = {
        "answer": "It is faster" if gained > 1.03 else "Level" if gained > 0.97 else "It is slower",
        "streams": label,
        "ratio": f"{gained:.2f}",
        "ttft_ratio": f"{ratio(points, OURS.name, BARE.name, 'ttft_p50_ms').median:.2f}",
    }
    for name, way in (("bare_core", BARE), ("ours_core", OURS)):
        per_token = of(points, way.name, cpu.API_SERVER).median
        found[name] = f"{1e6 / per_token:,.0f}"
    return found


def parsing_table(bodies: Results) -> str:
    rows = [
        row(it["body"], f"{it['bytes']:,}", Spread(**it["ms"]).shown(2), it["goal"])
        for it in bodies["rows"]
    ]
    return table(["body", "bytes", "ms in the middleware", "goal"], rows)


def plots(results: Results) -> dict[str, Plot]:
    """Plots by file name."""
    measured = results["measured"]
    name = MAIN if MAIN in measured else next(iter(measured))
    rounds = measured[name]
    ways = [way.name for way in TEXT_WAYS if way.name in next(iter(rounds[0].values()))]
    panels = [
        panel("output tokens/s", "tokens_per_s", rounds, ways),
        panel("median TTFT, ms", "ttft_p50_ms", rounds, ways),
    ]
    busy = [{label: point for label, point in done.items() if label != "1"} for done in rounds]
    panels.append(panel("API server's CPU, µs a token", cpu.API_SERVER, busy, ways))
    return {PLOT: Plot(name, tuple(panels))}

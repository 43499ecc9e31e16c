"""How cost grows with prompts, shared prefixes and images: a part of `make bench`.

Promises: bare vLLM and this Truss, with nginx, in turn on one server per model, one stream each.
"""

from typing import Any

from bench import part, servers
from bench.client import Bench
from bench.metrics import DTYPE, Load, Way, at, of, ratio
from bench.overhead import BARE, OURS
from bench.part import Group, Point, Results
from bench.plots import Plot, link, panel
from bench.session import Session
from deploy import cards
from deploy.markdown import row, table
from local.truss import NGINX_PORT

WAYS: tuple[Way, ...] = (BARE, OURS)
PLOT = "scaling.svg"
METRICS = ("ttft_p50_ms", "tokens_per_s")

PROMPTS = {
    "a prompt of 64 tokens": Load(1, 12, 8, 64),
    "1,024 tokens": Load(1, 8, 8, 1024),
    "4,096 tokens": Load(1, 4, 8, 4096),
    "16,384 tokens": Load(1, 3, 8, 16384),
    "4,096 tokens, 4,032 of them shared": Load(1, 12, 8, 64, prefix_tokens=4032),
}
IMAGES = {
    "one image of 10 KB": Load(1, 12, 8, images=1, image_bytes=10_000),
    "four images": Load(1, 8, 8, images=4, image_bytes=10_000),
    "four images that come again": Load(1, 12, 8, images=4, image_bytes=10_000, same_images=True),
}


def groups(model: str | None, quick: bool) -> list[Group]:
    chosen = [cards.load(name) for name in ([model] if model else ("mistral-7b", "pixtral-12b"))]
    found = []
    for card in chosen[: 1 if quick else None]:
        points = {
            label: Point(load, WAYS)
            for label, load in (IMAGES if card.features.images else PROMPTS).items()
        }
        if quick:
            points = dict(list(points.items())[:2])
        found.append(Group(card.name, card.name, points, rounds=2 if quick else 3))
    return found


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    planned = groups(model, quick)
    for group in part.lacking(planned, session):
        card = cards.load(group.model)
        session.say(f"{card.name}: starting vLLM")
        truss = servers.truss(card, {**servers.ROOM, "--dtype": DTYPE}, bypassed=True)
        with servers.started(servers.contained(truss), NGINX_PORT, card):
            part.measure(Bench(card, card.name), group, session)
    return {"measured": part.measured(planned, session)}


def values(results: Results) -> dict[str, str]:
    """The values for the braces in bench/text/scaling.md."""
    titles = ["a request with", "bare vLLM, TTFT p50, ms", "this Truss"]
    titles += ["bare vLLM, tokens/s", "this Truss"]
    rows, ratios = [], []
    for rounds in results["measured"].values():
        for label in rounds[0]:
            points = at(rounds, label)
            ttft, tokens = (ratio(points, OURS.name, BARE.name, metric) for metric in METRICS)
            bare_ttft, bare_tokens = (of(points, BARE.name, metric) for metric in METRICS)
            cells = (bare_ttft.shown(1), f"× {ttft.shown(2)}")
            rows.append(row(label, *cells, bare_tokens.shown(0), f"× {tokens.shown(2)}"))
            ratios.append(ttft.median)
    return {
        "table": table(titles, rows),
        "plot": link("TTFT over the length of the prompt", PLOT),
        "least": f"{min(ratios):.2f}",
        "most": f"{max(ratios):.2f}",
    }


def plots(results: Results) -> dict[str, Plot]:
    """TTFT over the prompt's length, or the number of images."""
    model, rounds = next(iter(results["measured"].items()))
    over = {
        label: load.prompt_tokens
        for label, load in PROMPTS.items()
        if label in rounds[0] and not load.prefix_tokens
    } or {label: load.images for label, load in IMAGES.items() if not load.same_images}
    by_size = [
        {str(size): done[label] for label, size in over.items() if label in done} for done in rounds
    ]
    axis = "images" if "one image of 10 KB" in over else "prompt, tokens"
    ttft = panel("median TTFT, ms", "ttft_p50_ms", by_size, [way.name for way in WAYS], axis)
    return {PLOT: Plot(model, (ttft,))}

"""Compares this Truss with the usual way to run `vllm serve`: a part of `make bench`.

Promises: three servers at once, called in turn within a round: stock vLLM, stock vLLM with
Mistral's tool calls switched on, and this Truss, with nginx. The stock servers are called directly:
on Baseten they would be behind nginx too.
"""

from typing import Any

from bench import backends, part, servers
from bench.client import CHAT, Bench
from bench.metrics import DTYPE, Load, Way, at, of, ratio
from bench.overhead import OURS
from bench.part import Group, Point, Results
from bench.plots import Plot, link, panel
from bench.session import Session
from deploy import cards
from deploy.cards import Card
from deploy.markdown import row, table
from local.standins.corpus import load_dialogues
from local.truss import NGINX_PORT

PORTS = {"stock": 8101, "tools": 8102}
TOOL_FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "mistral")
TOOL = {"tools": load_dialogues()["tools"]["definitions"]}
PLOT = "stock.svg"
MODELS = ("mistral-7b", "pixtral-12b")  # the default; a model that is named must have tools

STOCK = Way("stock", backends.CHAT, f"http://127.0.0.1:{PORTS['stock']}{CHAT}")
TOOLS = Way("stock, tools on", backends.CHAT, f"http://127.0.0.1:{PORTS['tools']}{CHAT}")
TOOLS_ASKED = Way("stock, a tool in the request", backends.CHAT, TOOLS.url, TOOL)
OURS_ASKED = Way("this Truss, a tool in the request", backends.CHAT, OURS.url, TOOL)
WAYS = (STOCK, TOOLS, OURS, TOOLS_ASKED, OURS_ASKED)
REQUESTS = {1: 4, 4: 16, 16: 32, 64: 64}  # by streams; stock vLLM with tools answers 4 a second


def group(card: Card, quick: bool) -> Group:
    loads = [Load(many, REQUESTS[many], 32) for many in ((1,) if quick else REQUESTS)]
    points = {str(load.streams): Point(load, WAYS) for load in loads}
    return Group(card.name, card.name, points, rounds=1 if quick else 3)


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    names = [model] if model else MODELS[: 1 if quick else None]
    planned = [group(cards.load(name), quick) for name in names]
    for wanted in part.lacking(planned, session):
        card = cards.load(wanted.model)
        session.say(f"{card.name}: starting three servers")
        bench = Bench(card, card.name)
        dtype = ("--dtype", DTYPE)
        truss = servers.truss(card, {**servers.ROOM, "--dtype": DTYPE})
        with (
            servers.started(servers.contained(truss), NGINX_PORT, card),
            servers.started(servers.stock(card, PORTS["stock"], *dtype), PORTS["stock"], card),
            servers.started(
                servers.stock(card, PORTS["tools"], *dtype, *TOOL_FLAGS), PORTS["tools"], card
            ),
        ):
            part.measure(bench, wanted, session)
    return {"measured": part.measured(planned, session)}


def values(results: Results) -> dict[str, str]:
    """The values for the braces in bench/text/stock.md."""
    titles = ["model", "streams", "stock, TTFT p50, ms", "stock, tools on", "this Truss"]
    titles += ["with a tool: stock, tools on", "this Truss"]
    titles += ["this Truss's tokens/s to stock's", "to stock's, tools on", "with a tool"]
    rows = []
    for model, rounds in results["measured"].items():
        for label in rounds[0]:
            points = at(rounds, label)
            cells = [of(points, way.name, "ttft_p50_ms").shown(0) for way in WAYS]
            for ours, other in ((OURS, STOCK), (OURS, TOOLS), (OURS_ASKED, TOOLS_ASKED)):
                cells.append("× " + ratio(points, ours.name, other.name, "tokens_per_s").shown(2))
            rows.append(row(model, label, *cells))
    first = next(iter(results["measured"].values()))
    most = "16" if "16" in first[0] else list(first[0])[-1]
    points = at(first, most)
    return {
        "table": table(titles, rows),
        "plot": link("TTFT and tokens/s over streams", PLOT),
        "streams": most,
        "model": next(iter(results["measured"])),
        "tools_ttft": f"{of(points, TOOLS.name, 'ttft_p50_ms').median:,.0f}",
        "stock_ttft": f"{of(points, STOCK.name, 'ttft_p50_ms').median:,.0f}",
        "ours_ttft": f"{of(points, OURS.name, 'ttft_p50_ms').median:,.0f}",
        "stock_ratio": f"{ratio(points, OURS.name, STOCK.name, 'tokens_per_s').median:.2f}",
        "tools_ratio": f"{ratio(points, OURS.name, TOOLS.name, 'tokens_per_s').median:.1f}",
    }


def plots(results: Results) -> dict[str, Plot]:
    model, rounds = next(iter(results["measured"].items()))
    ways = [way.name for way in WAYS]
    panels = (
        panel("median TTFT, ms", "ttft_p50_ms", rounds, ways, logarithmic=True),
        panel("output tokens/s", "tokens_per_s", rounds, ways),
    )
    return {PLOT: Plot(model, panels)}

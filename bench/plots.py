"""Plots of spreads, as SVG.

Promises: a plot is data until it is drawn, and the same data give the same file: no date, no random
ids. Lines are medians, error bars the minimum and maximum; text stays text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.metrics import Round, Spread, at, of

COLOURS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7")  # safe for colour-blind readers
MARKERS = "osD^v"
FOLDER = "benchmarks"
BARS_INCHES = (8.0, 2.6)
ASIDE = 0.04
PANEL_INCHES = (4.6, 3.4)


@dataclass(frozen=True)
class Panel:
    """Lines by name: x → spread of y; the x axis is logarithmic."""

    y: str
    x: str
    lines: Mapping[str, Mapping[float, Spread]]
    logarithmic: bool = False  # the y axis


@dataclass(frozen=True)
class Bars:
    """A bar for each name, the first one at the top."""

    y: str
    bars: Mapping[str, Spread]


@dataclass(frozen=True)
class Plot:
    title: str
    panels: tuple[Panel | Bars, ...]


def panel(
    title: str,
    metric: str,
    rounds: Sequence[Round],
    ways: Sequence[str],
    axis: str = "streams",
    logarithmic: bool = False,
) -> Panel:
    """A metric over the labels of the rounds' points, which must be numbers."""
    lines = {
        way: {
            float(x): of(at(rounds, x), way, metric)
            for x in rounds[0]
            if metric in rounds[0][x].get(way, {})
        }
        for way in ways
    }
    return Panel(title, axis, lines, logarithmic)


def link(text: str, file: str) -> str:
    """The link to a plot in a page; figures and plots are in a folder of the page's name."""
    return f"![{text}]({FOLDER}/{file})"


def draw(plot: Plot, file: Path) -> None:
    """Writes the plot as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        width, height = BARS_INCHES if isinstance(plot.panels[0], Bars) else PANEL_INCHES
        figure, axes = pyplot.subplots(
            1, len(plot.panels), figsize=(width * len(plot.panels), height), squeeze=False
        )
        for panel, place in zip(plot.panels, axes[0], strict=True):
            if isinstance(panel, Bars):
                _draw_bars(panel, place)
            else:
                _draw(panel, place)
        figure.suptitle(plot.title, fontsize=10)
        handles, names = axes[0][0].get_legend_handles_labels()
        if names:
            columns = min(len(names), 3)
            figure.legend(handles, names, loc="lower center", ncols=columns, frameon=False)
        rows = -(-len(names) // 3)
        figure.tight_layout(rect=(0, 0.07 * rows, 1, 1))
        figure.savefig(file, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _draw(panel: Panel, axes: Any) -> None:
    axes.set_xscale("log", base=2)
    marks: set[float] = set()
    for place, (name, points) in enumerate(panel.lines.items()):
        x = sorted(points)
        marks.update(x)
        medians = [points[at].median for at in x]
        bars = (
            [points[at].median - points[at].least for at in x],
            [points[at].most - points[at].median for at in x],
        )
        aside = place - (len(panel.lines) - 1) / 2
        axes.errorbar(
            [at * (1 + ASIDE * aside) for at in x],  # so that error bars do not overlap
            medians,
            yerr=bars,
            label=name,
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
    axes.minorticks_off()
    axes.set_xticks(sorted(marks), [f"{mark:g}" for mark in sorted(marks)])
    if panel.logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(panel.x)
    axes.set_title(panel.y, fontsize=9)
    axes.grid(alpha=0.25)


def _draw_bars(panel: Bars, axes: Any) -> None:
    names, spreads = list(panel.bars), list(panel.bars.values())
    medians = [it.median for it in spreads]
    bars = (
        [it.median - it.least for it in spreads],
        [it.most - it.median for it in spreads],
    )
    axes.barh(names, medians, xerr=bars, color=COLOURS[1], height=0.6, capsize=2)
    axes.invert_yaxis()
    axes.set_xlabel(panel.y)
    axes.grid(axis="x", alpha=0.25)

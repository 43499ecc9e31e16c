"""What is measured of a way to ask under a load, and the cells it is shown in.

Promises: pure; a figure is of one round, and a spread is of the figures of several rounds. What is
compared is a round's figures of two ways, never figures of two runs.
"""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bench.errors import BenchError

DTYPE = "bfloat16"  # CPUs have no arithmetic in float16: several times slower, and hides the rest
PROMPT_TOKENS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Way:
    """One way to ask: a backend of `vllm bench serve` and the URL it asks."""

    name: str
    backend: str
    url: str


@dataclass(frozen=True)
class Load:
    """`requests` requests of each way, `streams` at a time, each for `new_tokens` tokens.

    `images` data URLs of `image_bytes` bytes go with each prompt of `prompt_tokens` tokens.
    """

    streams: int
    requests: int
    new_tokens: int
    prompt_tokens: int = PROMPT_TOKENS
    images: int = 0
    image_bytes: int = 0

    @property
    def shown(self) -> str:
        return "one stream" if self.streams == 1 else f"{self.streams} streams"

    @property
    def pieces(self) -> list["Load"]:
        """The same, two requests a stream at a time: ways that take turns after each piece have the
        machine's better and worse seconds alike."""
        most = 2 * self.streams
        return [
            replace(self, requests=min(most, self.requests - done))
            for done in range(0, self.requests, most)
        ]


@dataclass(frozen=True)
class Figure:
    title: str
    digits: int


# By the name a figure has in the JSON; in the order of the tables
FIGURES = {
    "requests_per_s": Figure("requests/s", 2),
    "tokens_per_s": Figure("output tokens/s", 0),
    "ttft_p50_ms": Figure("TTFT p50, ms", 1),
    "ttft_p99_ms": Figure("TTFT p99, ms", 1),
    "itl_p50_ms": Figure("ITL p50, ms", 2),
    "itl_p99_ms": Figure("ITL p99, ms", 2),
}

Figures = dict[str, float]  # of one way in one round, by their names


def measured(
    seconds: float, tokens: int, ttfts: Sequence[float], itls: Iterable[Sequence[float]]
) -> Figures:
    """Figures of the requests of one way, which took `seconds` and gave `tokens` tokens in all;
    `ttfts` and `itls` are by request, in s."""
    between = [gap for gaps in itls for gap in gaps]
    if not between:
        raise BenchError("no request gave its text in more than one piece")
    return {
        "requests_per_s": len(ttfts) / seconds,
        "tokens_per_s": tokens / seconds,
        "ttft_p50_ms": percentile(ttfts, 50) * 1000,
        "ttft_p99_ms": percentile(ttfts, 99) * 1000,
        "itl_p50_ms": percentile(between, 50) * 1000,
        "itl_p99_ms": percentile(between, 99) * 1000,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """As vLLM's own, which is numpy's: between the two values that are nearest."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Spread:
    least: float
    median: float
    most: float

    def shown(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    values = sorted(values)
    return Spread(values[0], statistics.median(values), values[-1])


MET, MISSED = "met", "**missed**"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a goal allows a figure to be."""

    least: float | None = None
    most: float | None = None

    def met(self, by: Spread) -> str:
        """`MET` or `MISSED` by the median, which is what is shown first."""
        enough = self.least is None or by.median >= self.least
        return MET if enough and (self.most is None or by.median <= self.most) else MISSED


def at(rounds: Sequence[Mapping[str, Any]], streams: int | str) -> list[dict[str, Figures]]:
    """The rounds at so many streams: of each the figures by way."""
    return [done[str(streams)] for done in rounds]


def turned(ways: Sequence[T], number: int) -> list[T]:
    """The ways in the order of a round: another one begins each."""
    turn = number % len(ways)
    return [*ways[turn:], *ways[:turn]]


Rounds = Sequence[Mapping[str, Mapping[str, float]]]  # of each, the figures by the way's name


def of(rounds: Rounds, way: str, figure: str) -> Spread:
    return spread(done[way][figure] for done in rounds)


def ratio(rounds: Rounds, way: str, to: str, figure: str) -> Spread:
    """Of `way`'s figure to that of `to`, a round."""
    return spread(done[way][figure] / done[to][figure] for done in rounds)


def difference(rounds: Rounds, way: str, to: str, figure: str) -> Spread:
    """`way`'s figure less that of `to`, a round."""
    return spread(done[way][figure] - done[to][figure] for done in rounds)


def row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def head(*cells: object) -> list[str]:
    """The first two lines of a table."""
    return [row(*cells), row(*("---" for _ in cells))]


Table = Sequence[Mapping[str, Mapping[str, Figures]]]  # of each round, by streams and way


def figure_table(
    rounds: Table, ways: Sequence[str], figures: Mapping[str, Figure] = FIGURES
) -> list[str]:
    """By streams and way, where there are such figures."""
    lines = head("streams", "way", *(it.title for it in figures.values()))
    for streams, there in rounds[0].items():
        for way in ways:
            if figures.keys() <= there.get(way, {}).keys():
                found = at(rounds, streams)
                cells = (of(found, way, name).shown(it.digits) for name, it in figures.items())
                lines.append(row(streams, way, *cells))
    return lines


def ratio_table(
    rounds: Table, title: str, pairs: Mapping[str, tuple[str, str]], but: Collection[str] = ()
) -> list[str]:
    """Ratios of a way's figures to those of another by streams; `pairs` are by what they are called
    in the column `title`. `but`: figures that are no use in a ratio."""
    figures = {name: it for name, it in FIGURES.items() if name not in but}
    lines = head("streams", title, *(it.title.removesuffix(", ms") for it in figures.values()))
    for streams, there in rounds[0].items():
        for label, (way, to) in pairs.items():
            if way in there and to in there:
                found = at(rounds, streams)
                cells = (ratio(found, way, to, name).shown(2) for name in figures)
                lines.append(row(streams, label, *cells))
    return lines

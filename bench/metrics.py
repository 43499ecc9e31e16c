"""Loads, their metrics, and the table cells that show them.

Promises: pure; a metric is of one round, and a `Spread` is of the metrics of several rounds.
Comparisons are between two ways in the same round, never between two runs.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy

from bench.errors import BenchError
from deploy.markdown import row

DTYPE = "bfloat16"  # CPUs lack float16 arithmetic: it is several times slower, and hides the rest

T = TypeVar("T")


@dataclass(frozen=True)
class Way:
    """A backend of `vllm bench serve`, the URL it calls, and fields added to each request."""

    name: str
    backend: str
    url: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """`requests` requests per way, `streams` at a time, each for `new_tokens` tokens.

    A prompt has `prefix_tokens` tokens that all share, and `prompt_tokens` of its own; it comes
    with `images` data URLs of `image_bytes` bytes, the same for all requests if `same_images`.
    """

    streams: int
    requests: int
    new_tokens: int
    prompt_tokens: int = 8
    prefix_tokens: int = 0
    images: int = 0
    image_bytes: int = 0
    same_images: bool = False

    @property
    def pieces(self) -> list["Load"]:
        """The same load in pieces of four requests per stream: ways that alternate after each piece
        share the machine's better and worse seconds."""
        most = 4 * self.streams
        return [
            replace(self, requests=min(most, self.requests - done))
            for done in range(0, self.requests, most)
        ]


# By a metric's name in the JSON: its title and digits
METRICS = {
    "tokens_per_s": ("output tokens/s", 0),
    "ttft_p50_ms": ("TTFT p50, ms", 1),
    "ttft_p99_ms": ("TTFT p99, ms", 1),
    "itl_p50_ms": ("ITL p50, ms", 2),
    "itl_p99_ms": ("ITL p99, ms", 2),
}

Metrics = dict[str, float]  # of one way in one round
Point = Mapping[str, Metrics]  # by the way's name
Round = Mapping[str, Point]  # by the point's label


def measured(
    seconds: float, tokens: int, ttfts: Sequence[float], itls: Iterable[Sequence[float]]
) -> Metrics:
    """Metrics of the requests of one way, which took `seconds` and returned `tokens` tokens in
    total; `ttfts` and `itls` are per request, in s."""
    between = [gap for gaps in itls for gap in gaps]
    if not between:
        raise BenchError("no request gave its text in more than one piece")

    def percentile(values: Sequence[float], percent: float) -> float:
        return float(numpy.percentile(values, percent)) * 1000

    return {
        "tokens_per_s": tokens / seconds,
        "ttft_p50_ms": percentile(ttfts, 50),
        "ttft_p99_ms": percentile(ttfts, 99),
        "itl_p50_ms": percentile(between, 50),
        "itl_p99_ms": percentile(between, 99),
    }


@dataclass(frozen=True)
class Spread:
    least: float
    median: float
    most: float

    def shown(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.most:.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    values = sorted(values)
    return Spread(values[0], statistics.median(values), values[-1])


def of(rounds: Sequence[Point], way: str, metric: str) -> Spread:
    return spread(done[way][metric] for done in rounds)


def ratio(rounds: Sequence[Point], way: str, to: str, metric: str) -> Spread:
    """The ratio of `way`'s metric to that of `to`, per round."""
    return spread(done[way][metric] / done[to][metric] for done in rounds)


def difference(rounds: Sequence[Point], way: str, to: str, metric: str) -> Spread:
    """`way`'s metric minus that of `to`, per round."""
    return spread(done[way][metric] - done[to][metric] for done in rounds)


def at(rounds: Sequence[Round], label: str) -> list[Point]:
    """A point from every round."""
    return [done[label] for done in rounds]


def turned(ways: Sequence[T], number: int) -> list[T]:
    """The order of the ways in a round: each round begins with another."""
    turn = number % len(ways)
    return [*ways[turn:], *ways[:turn]]


@dataclass(frozen=True)
class Goal:
    """The target for a `Spread`'s median."""

    text: str
    least: float | None = None
    most: float | None = None

    def met(self, found: Spread) -> bool:
        return (self.least is None or found.median >= self.least) and (
            self.most is None or found.median <= self.most
        )

    def row(self, what: str, found: Spread, digits: int = 2) -> str:
        verdict = "met" if self.met(found) else "**missed**"
        return row(self.text, what, found.shown(digits), verdict)

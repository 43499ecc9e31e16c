"""Figures of several ways to ask, and the tables they are shown in.

Promises: pure; what is compared is a round's figures of two ways, never figures of two runs.
"""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench import backends, switch

PROMPT_TOKENS = 8
DTYPE = "bfloat16"  # CPUs have no arithmetic in float16: several times slower, and hides the rest


class BenchError(RuntimeError):
    """Why there are no figures, and what to do about it, in one line."""


@dataclass(frozen=True)
class Way:
    """One way to ask: a backend of `vllm bench serve` and its route."""

    name: str
    backend: str
    route: str


BARE = Way("bare vLLM", "openai-chat", f"{switch.BARE}/v1/chat/completions")
OPENAI = Way("through the class, OpenAI's shape", "openai-chat", "/v1/chat/completions")
OLDER = Way("through the class, older shape", backends.TEXT, "/predict")
WAYS = (BARE, OPENAI, OLDER)


@dataclass(frozen=True)
class Load:
    """A load of `requests` requests, `streams` at a time, each for `new_tokens` tokens."""

    streams: int
    requests: int
    new_tokens: int


@dataclass(frozen=True)
class Plan:
    rounds: int
    many: Load
    one: Load


FULL = Plan(rounds=20, many=Load(16, 128, 64), one=Load(1, 150, 4))
QUICK = Plan(rounds=3, many=Load(16, 64, 64), one=Load(1, 60, 4))


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


@dataclass(frozen=True)
class Figure:
    """A figure of every way under one of the plan's loads."""

    title: str
    load: str
    digits: int
    against: str  # how a round's figure is held against bare vLLM's: "ratio" or "difference"
    goals: dict[str, str]


THROUGHPUT = Figure(
    "Output tokens per second",
    "many",
    0,
    "ratio",
    {OPENAI.name: "at least 0.99", OLDER.name: "at least 0.95"},
)
CPU = Figure("CPU time of the server a request, in ms", "many", 2, "ratio", {})
TTFT = Figure(
    "Median time to first token, in ms", "one", 2, "difference", {OPENAI.name: "at most 0.3"}
)
FIGURES = [THROUGHPUT, CPU, TTFT]

Rounds = list[dict[str, float]]  # of each round, the figure by the way's name


def table(figure: Figure, rounds: Rounds) -> list[str]:
    lines = [
        f"| way | {figure.title} | {figure.against} to bare vLLM, a round | goal |",
        "| --- | --- | --- | --- |",
    ]
    for way in WAYS:
        values = spread(got[way.name] for got in rounds)
        if way is BARE:
            against = ""
        elif figure.against == "ratio":
            against = spread(got[way.name] / got[BARE.name] for got in rounds).shown(3)
        else:
            against = spread(got[way.name] - got[BARE.name] for got in rounds).shown(2)
        goal = figure.goals.get(way.name, "")
        lines.append(f"| {way.name} | {values.shown(figure.digits)} | {against} | {goal} |")
    return lines

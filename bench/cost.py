"""What the class in front of vLLM costs: a part of `make bench`."""

from typing import Any

from bench import load, reading
from bench.figures import DTYPE, FIGURES, FULL, QUICK, Spread, table


def measure(model: str, quick: bool) -> dict[str, Any]:
    plan = QUICK if quick else FULL
    with load.console.status("reading bodies"):
        bodies = reading.measure(20 if quick else 100)
    return {
        "plan": {"rounds": plan.rounds, "many": vars(plan.many), "one": vars(plan.one)},
        "reading": bodies,
        "rounds": load.measure(model, plan),
    }


def section(results: dict[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    reading, plan = results["reading"], results["plan"]
    lines = [
        "## What the class in front of vLLM costs",
        "",
        "Of an OpenAI-shaped body it reads the names of the top level, and hands the body on. Time",
        "in the class for one request, from the first chunk of the body to the call of vLLM, in ms",
        f"({reading['repeats']} times each):",
        "",
        "| body | bytes | ms | goal |",
        "| --- | --- | --- | --- |",
    ]
    for row in reading["rows"]:
        shown = Spread(**row["ms"]).shown(3)
        lines.append(f"| {row['body']} | {row['bytes']:,} | {shown} | {row['goal']} |")
    lines += [
        "",
        f"One vLLM server in {DTYPE} with two doors, measured by `vllm bench serve` in "
        f"{plan['rounds']} rounds, in turning order. At one stream the ways take turns request by",
        "request. Other users of the machine make themselves felt in the rounds' least and most.",
    ]
    for figure in FIGURES:
        load = plan[figure.load]
        streams = "one stream" if load["streams"] == 1 else f"{load['streams']} streams"
        lines += [
            "",
            f"At {streams}, {load['requests']} requests a round, {load['new_tokens']} new tokens "
            "each:",
            "",
            *table(figure, results["rounds"][figure.title]),
        ]
    return lines

"""Measures this Truss on this machine, part by part, or a deployment by its URL; writes a page.

Promises: a part's figures are one JSON file, and the page is made of all there are, with plots;
what is compared ran in the same run, interleaved, and is reported as ratios or differences within a
round. A run that was stopped goes on. Refuses to write the figures of a part that failed.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from bench import deployment, overhead, plots, scaling, session, startup
from bench.errors import BenchError
from bench.machine import commit, machine, versions
from bench.metrics import MET, MISSED
from bench.session import Session
from deploy import cards
from deploy.config import PORT
from deploy.errors import UsageError
from deploy.paths import ROOT
from local.truss import NGINX_PORT, CannotServeError, check_machine
from scripts.command import command

PAGE = "benchmarks.md"  # in the folder that is written to; figures and plots in one of its name
DOCS = ROOT / "docs"
CACHE = ROOT / ".cache" / "bench"
ELSEWHERE = ROOT / "bench" / "elsewhere.md"

HEAD = """\
# Benchmarks

Made by `make bench`, or a part at a time by `make bench PART=…`; the figures of every round are in
`benchmarks/`.
Absolute figures say nothing about a GPU; ratios and differences are within one run.
A figure is a median, with the least and the most behind it; the lines of a plot are medians, its
bars the least and the most.
"""


ROUGH = "**Rough figures of a quick run.** "


class Part(Protocol):
    """A module that measures something."""

    def measure(self, model: str | None, quick: bool, session: Session) -> dict[str, Any]:
        """Figures as JSON can hold them, of one model or those that the part is for; `BenchError`
        when there are none."""

    def section(self, results: dict[str, Any]) -> list[str]:
        """Lines of the page, a heading first, from what `measure` returned."""


# the name PART= takes, which is its file's in docs/benchmarks/ too; in the order of the page
PARTS: dict[str, Part] = {
    "overhead": overhead,
    "scaling": scaling,
    "startup": startup,
}
QUICK_PARTS = ("overhead",)
# Measured before the others, which load into this process what a cold start is to read from disk.
STARTS = ("startup",)


def applying(wanted: Sequence[str], model: str | None) -> list[str]:
    """Those of the parts that can measure a model; a part that has `MODELS` is for these alone."""
    return [
        name
        for name in wanted
        if model is None or model in getattr(PARTS[name], "MODELS", cards.names())
    ]


def models(results: Mapping[str, Any]) -> list[str]:
    """The models that a part's figures are of."""
    measured = results.get("measured")
    return list(dict.fromkeys(it["model"] for it in measured)) if measured else [results["model"]]


def provenance(results: Mapping[str, Any]) -> str:
    rough = ROUGH if results.get("quick") else ""
    return (
        f"{rough}Machine: {results['machine']}. {results['versions']}; vLLM on the CPU, the "
        f"stand-in of {', '.join(models(results))}. Commit {results['commit']}, {results['date']}."
    )


def page(folder: Path) -> str:
    """The page made of the figures in `folder`, a JSON file a part."""
    lines = [HEAD]
    for name, part in PARTS.items():
        file = folder / f"{name}.json"
        if file.exists():
            results = json.loads(file.read_text(encoding="utf-8"))
            heading, *rest = part.section(results)
            lines += [heading, "", provenance(results), *goals_met(rest), *rest, ""]
    return "\n".join([*lines, ELSEWHERE.read_text(encoding="utf-8")]).rstrip("\n") + "\n"


def goals_met(lines: Sequence[str]) -> list[str]:
    """How many of the goals in a part's tables are met."""
    met, missed = (sum(line.endswith(f"| {it} |") for line in lines) for it in (MET, MISSED))
    return [f"Goals met: {met} of {met + missed}."] if met + missed else []


def drawn(part: object, results: Mapping[str, Any], folder: Path) -> None:
    """Draws a part's plots, if it has any."""
    for name, plot in getattr(part, "plots", lambda _: {})(results).items():
        plots.draw(plot, folder / name)


def write(to: Path, name: str, results: Mapping[str, Any]) -> None:
    (to / plots.FOLDER).mkdir(exist_ok=True)
    (to / plots.FOLDER / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def measure(name: str, options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures a part and writes its figures, its plots and the page they are in."""
    check_machine({"nginx": NGINX_PORT, "vLLM": PORT})
    run = opened(name, options, to, console)
    results = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(session.SOURCES),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
        **PARTS[name].measure(options.model, options.quick, run),
    }
    write(to, name, results)
    drawn(PARTS[name], results, to / plots.FOLDER)
    (to / PAGE).write_text(page(to / plots.FOLDER), encoding="utf-8")
    run.forget()


def measure_parts(options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures the parts that are asked for, one after the other."""
    if options.part:
        wanted = [options.part]
    else:
        wanted = applying([*(QUICK_PARTS if options.quick else PARTS)], options.model)
        wanted.sort(key=lambda name: name not in STARTS)
    for number, name in enumerate(wanted, 1):
        if len(wanted) > 1:
            console.print(f"{name}: part {number} of {len(wanted)}", highlight=False)
        try:
            measure(name, options, to, console)
        except (BenchError, CannotServeError) as error:
            raise BenchError(f"{name}: {error}") from error
        print(f"wrote {to / PAGE} and {to / plots.FOLDER / name}.json")


def draw_again(to: Path) -> None:
    """Page and plots from the figures there are."""
    figures = to / plots.FOLDER
    if not figures.is_dir():
        raise BenchError(f"there is no {figures}, and so no figures for a page")
    for name, part in PARTS.items():
        if (figures / f"{name}.json").exists():
            drawn(part, json.loads((figures / f"{name}.json").read_text("utf-8")), figures)
    (to / PAGE).write_text(page(figures), encoding="utf-8")


def folder(options: argparse.Namespace) -> Path:
    """Where a run writes to: what is published is of all models, and not rough."""
    kind = "-".join(filter(None, [options.model, "quick" if options.quick else None]))
    return writable(options.output or (CACHE / kind if kind else DOCS))


def writable(to: Path) -> Path:
    """The folder, which is made if it is not there; `BenchError` before anything is measured for
    one that cannot be written to."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=to):
            return to
    except OSError as error:
        raise BenchError(
            f"{to} cannot be written to ({error.strerror}); OUTPUT= takes a folder"
        ) from None


def measure_deployment(options: argparse.Namespace, console: Console) -> Path:
    """Measures what is at --url → the page."""
    where = deployment.target(options.url)
    to = writable(options.output or CACHE / where.name)
    run = opened(where.base, options, to, console)
    results = {
        "from": machine(),
        "commit": commit(session.SOURCES),
        "date": time.strftime("%Y-%m-%d"),
        **deployment.measure(where, options.model, options.quick, run),
    }
    write(to, "deployment", results)
    drawn(deployment, results, to / plots.FOLDER)
    heading, *rest = deployment.section(results)
    rough = ROUGH if options.quick else ""
    said = f"{rough}Asked from {results['from']}. Commit {results['commit']}, {results['date']}."
    (to / PAGE).write_text("\n".join([heading, "", said, *rest]) + "\n", encoding="utf-8")
    run.forget()
    return to / PAGE


def opened(name: str, options: argparse.Namespace, to: Path, console: Console) -> Session:
    """What is done of a part, from a file that is not published."""
    key = {
        "part": name,
        "model": options.model,
        "quick": options.quick,
        "sources": session.sources(),
        "machine": machine(),
    }
    file = f"{session.file_name(name)}{'-quick' if options.quick else ''}.partial.json"
    return Session((CACHE if to == DOCS else to) / file, key, console, options.fresh)


@command("bench")
def main(options: argparse.Namespace) -> None:
    if options.part is not None and options.part not in PARTS:
        raise UsageError(f"PART={options.part!r} is not a part; use one of: {', '.join(PARTS)}")
    if options.url is not None and (options.part or options.page_only):
        raise UsageError("URL= measures a deployment, which has no parts")
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)  # which unwinds, and ends the server
    console = Console(file=sys.stderr)  # this one: while vLLM measures, another has its name
    try:
        if options.model:
            cards.load(options.model)  # or no part would be for it
        if options.url is not None:
            print(f"wrote {measure_deployment(options, console)}")
        elif options.page_only:
            draw_again(folder(options))
        else:
            measure_parts(options, folder(options), console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "stopped; rounds that were done are kept, and the same command goes on from there"
        ) from None


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # past the pages that Triton's bindings print of themselves at the end

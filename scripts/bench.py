"""Measures this Truss on this machine, part by part, or a deployment by its URL; writes a page.

Promises: a part's figures are one JSON file, and the page is made of all there are, with plots;
what is compared ran in the same run, interleaved, and is reported as ratios or differences within a
round. A run that was stopped goes on. Refuses to write the figures of a part that failed.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench import deployment, page, plots, session
from bench.errors import BenchError
from bench.machine import commit, machine, versions
from bench.page import PARTS
from bench.session import Session
from deploy import cards
from deploy.config import PORT
from deploy.errors import UsageError
from deploy.paths import ROOT
from local.truss import NGINX_PORT, CannotServeError, check_machine
from scripts.command import command

DOCS = ROOT / "docs"
CACHE = ROOT / ".cache" / "bench"

QUICK_PARTS = ("overhead",)
# Measured before the others, which load into this process what a cold start is to read from disk.
FIRST = ("startup",)


def measure(name: str, options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures a part and writes its metrics, its plots and the page they are in."""
    check_machine({"nginx": NGINX_PORT, "vLLM": PORT})
    run = opened(name, options, to, console)
    results = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(session.SOURCES),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
        "load": round(os.getloadavg()[1], 1),  # what ran beside, before it began
        **PARTS[name].measure(options.model, options.quick, run),
    }
    page.write_results(to, name, results)
    page.write(to)
    run.forget()


def measure_parts(options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures the parts that are asked for, one after the other."""
    if options.part:
        wanted = [options.part]
    else:
        wanted = [*(QUICK_PARTS if options.quick else PARTS)]
        wanted.sort(key=lambda name: name not in FIRST)
    for number, name in enumerate(wanted, 1):
        if len(wanted) > 1:
            console.print(f"{name}: part {number} of {len(wanted)}", highlight=False)
        try:
            measure(name, options, to, console)
        except (BenchError, CannotServeError) as error:
            raise BenchError(f"{name}: {error}") from error
        print(f"wrote {to / page.NAME} and {to / plots.FOLDER / name}.json")


def draw_again(to: Path) -> None:
    """Page and plots from the metrics there are."""
    if not (to / plots.FOLDER).is_dir():
        raise BenchError(f"{to / plots.FOLDER} does not exist, so there are no metrics for a page")
    page.write(to)


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
    to = writable(options.output) if options.output else None
    where = deployment.target(options.url)
    to = to or writable(CACHE / where.name)
    run = opened(where.base, options, to, console)
    results = {
        "from": machine(),
        "commit": commit(session.SOURCES),
        "date": time.strftime("%Y-%m-%d"),
        **deployment.measure(where, options.model, options.quick, run),
    }
    page.write_results(to, "deployment", results)
    for file, plot in deployment.plots(results).items():
        plots.draw(plot, to / plots.FOLDER / file)
    rough = page.ROUGH if options.quick else ""
    said = f"{rough}Asked from {results['from']}. Commit {results['commit']}, {results['date']}."
    (to / page.NAME).write_text(f"{deployment.page(results)}\n{said}\n", encoding="utf-8")
    run.forget()
    return to / page.NAME


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

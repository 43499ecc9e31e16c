"""Measures this Truss on this machine, part by part, or a deployment by its URL; writes a page.

Promises: a part's figures are one JSON file, and the page and its plots are made from all of them;
values that are compared come from the same run, interleaved, and are reported as ratios or
differences within a round. A run that was stopped resumes. Refuses to write the figures of a part
that failed.
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
# Measured first: the others load into this process what a cold start has to read from disk.
FIRST = ("startup",)


def measure(name: str, options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures a part and writes its metrics, its plots and their page."""
    check_machine({"nginx": NGINX_PORT, "vLLM": PORT})
    run = opened(name, options, to, console)
    results = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(session.SOURCES),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
        "load": round(os.getloadavg()[1], 1),  # of other work, before the part began
        **PARTS[name].measure(options.model, options.quick, run),
    }
    page.write_results(to, name, results)
    page.write(to)
    run.forget()


def measure_parts(options: argparse.Namespace, to: Path, console: Console) -> None:
    """Measures the requested parts, one after the other."""
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
    """Redraws the page and plots from the existing metrics."""
    if not (to / plots.FOLDER).is_dir():
        raise BenchError(f"{to / plots.FOLDER} does not exist, so there are no metrics for a page")
    page.write(to)


def folder(options: argparse.Namespace) -> Path:
    """The output folder of a run: only complete runs of all models are published."""
    kind = "-".join(filter(None, [options.model, "quick" if options.quick else None]))
    return writable(options.output or (CACHE / kind if kind else DOCS))


def writable(to: Path) -> Path:
    """The folder, created if missing; `BenchError`, before anything is measured, if it cannot be
    written to."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=to):
            return to
    except OSError as error:
        raise BenchError(
            f"{to} cannot be written to ({error.strerror}); OUTPUT= takes a folder"
        ) from None


def measure_deployment(options: argparse.Namespace, console: Console) -> Path:
    """Measures the deployment at --url → the page."""
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
    """The finished rounds of a part, from a file that is not published."""
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
        signal.signal(stop, signal.default_int_handler)  # it unwinds, and so ends the server
    console = Console(file=sys.stderr)  # fixed now: while vLLM measures, sys.stderr is another
    try:
        if options.model:
            cards.load(options.model)  # an unknown model would match no part
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
    os._exit(status)  # skips the pages that Triton's bindings print about themselves at exit

"""Measures this Truss on this machine, part by part, and writes docs/benchmarks.md.

Promises: a part's figures are one JSON file, and the page is made of all there are; what is
compared ran in the same run, interleaved, and is reported as ratios or differences within a round.
Refuses to write the figures of a part that failed. Times are of this machine and its stand-ins.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from bench import cost, startup, steps
from bench.figures import BenchError
from scripts import cards, render, serve
from scripts.cards import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_PAGE = ROOT / ".cache" / "bench" / "benchmarks.md"

HEAD = """\
# Benchmarks

Made by `make bench`, or a part at a time by `make bench PART=…`; the figures of every round are in
`benchmarks/`.
Absolute figures say nothing about a GPU; ratios and differences are within one run.
A figure is a median, with the least and the most behind it.
"""


class Part(Protocol):
    """A module that measures something."""

    def measure(self, model: str, quick: bool) -> dict[str, Any]:
        """Figures as JSON can hold them; `BenchError` when there are none."""

    def section(self, results: dict[str, Any]) -> list[str]:
        """Lines of the page, a heading first, from what `measure` returned."""


# the name PART= takes, which is its file's in docs/benchmarks/ too; in the order of the page
PARTS: dict[str, Part] = {"startup": startup, "steps": steps, "class": cost}


def commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "packages", "scripts", "templates", "local")
    return f"{git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {platform.system()}"


def page(folder: Path) -> str:
    """The page made of the figures in `folder`, a JSON file a part."""
    lines = [HEAD]
    for name, part in PARTS.items():
        path = folder / f"{name}.json"
        if path.exists():
            results = json.loads(path.read_text(encoding="utf-8"))
            heading, *rest = part.section(results)
            lines += [heading, "", provenance(results), *rest, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def provenance(results: dict[str, Any]) -> str:
    return (
        f"Machine: {results['machine']}. vLLM {results['vllm']} on CPU, the stand-in of "
        f"{results['model']}, commit {results['commit']}, {results['date']}."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cards.DEFAULT_MODEL, help=", ".join(cards.names()))
    parser.add_argument("--part", choices=PARTS, help="measure this part alone")
    parser.add_argument("--quick", action="store_true", help="rough figures in a few minutes")
    parser.add_argument(
        "--page-only", action="store_true", help="write the page from the figures there are"
    )
    parser.add_argument(
        "--output", type=Path, help="the page to write; a quick one is not docs/benchmarks.md"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop unwinds, and ends the server
    output = options.output or (QUICK_PAGE if options.quick else PAGE)
    folder = output.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [] if options.page_only else [options.part] if options.part else [*PARTS]
    for name in wanted:
        try:
            cards.load(options.model)
            serve.check_machine({"nginx": serve.NGINX_PORT, "vLLM": render.PORT})
            results = {
                "machine": machine(),
                "vllm": render.vllm_version(),
                "model": options.model,
                "commit": commit(),
                "date": time.strftime("%Y-%m-%d"),
                **PARTS[name].measure(options.model, options.quick),
            }
        except (cards.CardError, serve.CannotServeError, BenchError) as error:
            print(f"{parser.prog}: {name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{parser.prog}: interrupted; nothing was written of {name}", file=sys.stderr)
            return 130
        (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        output.write_text(page(folder), encoding="utf-8")
        print(f"wrote {output} and {folder / f'{name}.json'}")
    if options.page_only:
        output.write_text(page(folder), encoding="utf-8")
        print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # past the pages that Triton's bindings print of themselves at the end

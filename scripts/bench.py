"""Measures what packages/predict costs beside vLLM alone, and writes docs/benchmarks.md.

Promises: `vllm bench serve` measures, this drives it; what is compared runs in the same run on the
same server, interleaved and in turning order, and is reported as ratios or differences within a
round. Refuses to write a page when a request failed. Times are of this machine and its stand-ins.
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

from bench import figures, load, reading
from bench.figures import FULL, QUICK, BenchError
from scripts import cards, render, serve
from scripts.cards import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_PAGE = ROOT / ".cache" / "bench" / "benchmarks.md"


def commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "packages", "scripts", "templates")
    return f"{git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}"


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {platform.system()}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cards.DEFAULT_MODEL, help=", ".join(cards.names()))
    parser.add_argument("--quick", action="store_true", help="rough figures in two minutes")
    parser.add_argument(
        "--output", type=Path, help="the page to write; a quick one is not docs/benchmarks.md"
    )
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop unwinds, and ends the server
    output = options.output or (QUICK_PAGE if options.quick else PAGE)
    try:
        cards.load(options.model)
        serve.check_machine({"nginx": serve.NGINX_PORT, "vLLM": render.PORT})
        with load.console.status("reading bodies"):
            bodies = reading.measure(20 if options.quick else 100)
        results = {
            "machine": machine(),
            "vllm": render.vllm_version(),
            "model": options.model,
            "commit": commit(),
            "date": time.strftime("%Y-%m-%d"),
            "plan": {"rounds": plan.rounds, "many": vars(plan.many), "one": vars(plan.one)},
            "reading": bodies,
            "rounds": load.measure(options.model, plan),
        }
    except (cards.CardError, serve.CannotServeError, BenchError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing was written", file=sys.stderr)
        return 130
    data = output.with_suffix("") / "class.json"
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    output.write_text(figures.page(results), encoding="utf-8")
    print(f"wrote {output} and {data}")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # past the pages that Triton's bindings print of themselves at the end

"""Measures what packages/predict costs beside vLLM alone, and writes docs/benchmarks.md.

Promises: `vllm bench serve` measures, this drives it; what is compared runs in the same run on the
same server, interleaved and in turning order, and is reported as ratios or differences within a
round. Refuses to write a page when a request failed. Times are of this machine and its stand-ins.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import switch, text_stream
from scripts import cards, render, serve, standin
from scripts.cards import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_PAGE = ROOT / ".cache" / "bench" / "benchmarks.md"
VLLM = f"http://127.0.0.1:{render.PORT}"  # past nginx, which is not what is measured
START_SECONDS = 400
PROMPT_TOKENS = 8
DTYPE = "bfloat16"  # CPUs have no arithmetic in float16: several times slower, and hides the rest

console = Console(stderr=True)


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
OLDER = Way("through the class, older shape", text_stream.NAME, "/predict")
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


FULL = Plan(rounds=12, many=Load(16, 128, 64), one=Load(1, 60, 4))
QUICK = Plan(rounds=3, many=Load(16, 64, 64), one=Load(1, 30, 4))

# --- pure: figures and the page ---


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
    """A figure of every way: which load of the plan it is from, and its key in vLLM's result."""

    title: str
    load: str
    key: str
    digits: int
    against: str  # how a round's figure is held against bare vLLM's: "ratio" or "difference"
    goals: dict[str, str]


FIGURES = [
    Figure(
        "Output tokens per second",
        "many",
        "output_throughput",
        0,
        "ratio",
        {OPENAI.name: "at least 0.99", OLDER.name: "at least 0.95"},
    ),
    Figure("CPU time of the API server per request, in ms", "many", "cpu_ms", 2, "difference", {}),
    Figure(
        "Median time to first token, in ms",
        "one",
        "median_ttft_ms",
        1,
        "difference",
        {OPENAI.name: "at most 0.3"},
    ),
]

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


def page(results: dict[str, Any]) -> str:
    """docs/benchmarks.md."""
    reading, plan = results["reading"], results["plan"]
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`; the figures of every round are in `benchmarks/class.json`.",
        f"Machine: {results['machine']}. vLLM {results['vllm']} on CPU, the stand-in of "
        f"{results['model']} in {DTYPE}, commit {results['commit']}, {results['date']}.",
        "Absolute figures say nothing about a GPU; ratios and differences are within one run.",
        "A figure is a median, with the least and the most behind it.",
        "",
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
        "One vLLM server with two doors, measured by `vllm bench serve` in",
        f"{plan['rounds']} rounds, in turning order. It has no tool parser: vLLM builds Mistral's",
        "anew for each request, which takes many times what is measured here.",
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
    return "\n".join(lines) + "\n"


# --- reading a body ---


def bodies() -> dict[str, tuple[bytes, str]]:
    """Bodies by name, with the goal."""

    def chat(content: Any) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 2500000}}
    return {
        "a question of 4 KB": (chat('What does "mistral" mean?\n' * 140), "at most 0.1"),
        "an image of 10 MB": (chat([{"type": "text", "text": "What?"}, image]), "at most 10"),
        "a text of 10 MB": (chat(f"{'The wind blows. ' * 6}\n" * 102_000), "at most 10"),
        "the same size, all of it escaped": (chat('"\u00e9"\n' * 830_000), ""),
    }


def measure_reading(repeats: int) -> dict[str, Any]:
    """The time between a body's first chunk and the call of the application behind the class."""
    from predict.middleware import Predict

    async def once(body: bytes) -> float:
        chunks = [body[i : i + 65536] for i in range(0, len(body), 65536)]  # as uvicorn cuts it
        reached = 0.0

        async def vllm(scope: Any, receive: Any, send: Any) -> None:
            nonlocal reached
            await receive()
            reached = time.perf_counter()

        messages = iter(
            {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
            for i, chunk in enumerate(chunks)
        )

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            raise BenchError(f"the class answered a benign request itself: {message}")

        scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
        predict = Predict(vllm)
        started = time.perf_counter()
        await predict(scope, receive, send)
        return (reached - started) * 1000

    rows = []
    for name, (body, goal) in bodies().items():
        times = [asyncio.run(once(body)) for _ in range(repeats)]
        rows.append({"body": name, "bytes": len(body), "goal": goal, "ms": vars(spread(times))})
    return {"repeats": repeats, "rows": rows}


# --- load ---


@contextlib.contextmanager
def server(model: str) -> Iterator[None]:
    """The Truss of a model with the switch in the place of the class."""
    card = cards.load(model)
    config = render.render(card, render.Choices())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        truss, log = Path(folder) / "truss", Path(folder) / "log"
        truss.mkdir()
        changes = {
            "predict.middleware.Predict": "bench_switch.Switch",
            f"--dtype {card.hardware.precision}": f"--dtype {DTYPE}",
            # vLLM builds its Mistral tool parser anew for each request, which takes many times what
            # is measured here.
            "--enable-auto-tool-choice": "",
            "--tool-call-parser mistral": "",
            # One process instead of three, which take each other's place on a small machine: what
            # the class takes is then taken from the engine, and the rounds differ less.
            "\n  PYTHONPATH:": "\n  VLLM_ENABLE_V1_MULTIPROCESSING: '0'\n  PYTHONPATH:",
        }
        for there, here in changes.items():
            if there not in config:
                raise BenchError(f"the start command has no {there}; mend scripts/bench.py")
            config = config.replace(there, here)
        serve.stage(config, truss)
        (truss / "packages" / "bench_switch.py").write_text(Path(switch.__file__).read_text())
        command = [sys.executable, "-m", "scripts.serve", "--truss", str(truss)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            started = time.monotonic()
            with console.status("starting vLLM, a minute or so"):
                while not serve.is_ready():
                    if process.poll() is not None or time.monotonic() - started > START_SECONDS:
                        last = log.read_text(errors="replace").splitlines()[-1:]
                        raise BenchError(f"vLLM did not start: {' '.join(last)}")
                    time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class Bench:
    """`vllm bench serve`, called as often as needed without its seconds of imports."""

    def __init__(self, model: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from vllm.benchmarks import serve as vllm_serve
            from vllm.utils.argparse_utils import FlexibleArgumentParser
        text_stream.register()
        self.vllm_serve = vllm_serve
        self.parser = FlexibleArgumentParser()
        vllm_serve.add_cli_args(self.parser)
        self.model = model
        self.tokenizer = str(standin.ensure(cards.load(model)))

    def run(self, way: Way, load: Load, seed: int) -> dict[str, Any]:
        arguments = {
            "--model": self.model,
            "--tokenizer": self.tokenizer,
            "--tokenizer-mode": "mistral",
            "--backend": way.backend,
            "--base-url": VLLM,
            "--endpoint": way.route,
            "--dataset-name": "random",
            "--random-input-len": PROMPT_TOKENS,
            "--random-output-len": load.new_tokens,
            "--num-prompts": load.requests,
            "--max-concurrency": load.streams,
            "--seed": seed,
            "--temperature": 0 if way.backend == "openai-chat" else None,
            "--extra-body": None if way.backend == "openai-chat" else '{"temperature": 0}',
        }
        words = [str(w) for pair in arguments.items() if pair[1] is not None for w in pair]
        options = self.parser.parse_args(
            [*words, "--ignore-eos", "--disable-tqdm", "--save-detailed"]
        )
        said = io.StringIO()
        before = api_server_cpu()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result: dict[str, Any] = asyncio.run(self.vllm_serve.main_async(options))
        if result["completed"] != load.requests:
            failed = load.requests - result["completed"]
            why = next((error for error in result["errors"] if error), "no reason given")
            raise BenchError(f"{failed} of {load.requests} requests failed, {way.name}: {why}")
        result["cpu_ms"] = (api_server_cpu() - before) * 1000 / load.requests
        return result


def api_server_cpu() -> float:
    """CPU time the API server has used, in seconds, from its metrics."""
    with serve.DIRECTLY.open(f"{VLLM}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("process_cpu_seconds_total "):
                return float(line.split()[1])
    raise BenchError("vLLM's metrics have no process_cpu_seconds_total")


def measure_load(model: str, plan: Plan) -> dict[str, Rounds]:
    """The rounds of every figure, by its title."""
    bench = Bench(model)
    rounds: dict[str, Rounds] = {figure.title: [] for figure in FIGURES}
    with server(model):
        for way in WAYS:  # nothing is measured cold
            bench.run(way, plan.many, seed=0)
        for number in range(plan.rounds):
            turn = number % len(WAYS)
            order = [*WAYS[turn:], *WAYS[:turn]]
            with console.status(f"round {number + 1} of {plan.rounds}"):
                # a prompt that comes again would be answered from the prefix cache
                seeds = itertools.count(1 + 10 * number)
                got = {
                    "many": {way.name: bench.run(way, plan.many, next(seeds)) for way in order},
                    "one": {way.name: bench.run(way, plan.one, next(seeds)) for way in order},
                }
            for figure in FIGURES:
                of_load = got[figure.load]
                rounds[figure.title].append(
                    {way.name: of_load[way.name][figure.key] for way in WAYS}
                )
            shown = ", ".join(f"{got['many'][way.name]['output_throughput']:.0f}" for way in WAYS)
            console.print(f"round {number + 1} of {plan.rounds}: {shown} tokens/s")
    return rounds


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
        with console.status("reading bodies"):
            reading = measure_reading(20 if options.quick else 100)
        results = {
            "machine": machine(),
            "vllm": render.vllm_version(),
            "model": options.model,
            "commit": commit(),
            "date": time.strftime("%Y-%m-%d"),
            "plan": {"rounds": plan.rounds, "many": vars(plan.many), "one": vars(plan.one)},
            "reading": reading,
            "rounds": measure_load(options.model, plan),
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
    output.write_text(page(results), encoding="utf-8")
    print(f"wrote {output} and {data}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

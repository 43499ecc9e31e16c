"""A server with two doors (bench/switch.py), and `vllm bench serve` in front of it."""

import asyncio
import contextlib
import functools
import io
import itertools
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import backends, switch
from bench.figures import (
    CPU,
    DTYPE,
    FIGURES,
    PROMPT_TOKENS,
    THROUGHPUT,
    TTFT,
    WAYS,
    BenchError,
    Load,
    Plan,
    Rounds,
    Way,
)
from scripts import cards, render, serve, standin
from scripts.cards import ROOT
from scripts.choices import Choices

VLLM = f"http://127.0.0.1:{render.PORT}"  # past nginx, which is not what is measured
START_SECONDS = 400

console = Console(stderr=True)


@contextlib.contextmanager
def server(model: str) -> Iterator[None]:
    """The Truss of a model with the switch in the place of the classes."""
    card = cards.load(model)
    config = render.render(card, Choices())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        truss, log = Path(folder) / "truss", Path(folder) / "log"
        truss.mkdir()
        changes = {
            "--middleware predict.middleware.Predict\n    ": "",  # the switch has both
            "predict.gate.Gate": "bench_switch.Switch",
            f"--dtype {card.hardware.precision}": f"--dtype {DTYPE}",
        }
        for there, here in changes.items():
            if there not in config:
                raise BenchError(f"the start command has no {there}; mend bench/load.py")
            config = config.replace(there, here)
        serve.stage(config, truss)
        (truss / "packages" / "bench_switch.py").write_text(Path(switch.__file__).read_text())
        command = [sys.executable, "-m", "scripts.serve", "--truss", str(truss)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            started = time.monotonic()
            console.print("starting vLLM, a minute or so")
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
        backends.register(backends.TEXT, backends.text_stream)
        backends.register(backends.IN_TURN, None)  # so that the parser knows its name
        # it reads the tokenizer anew in each run, for seconds
        vllm_serve.get_tokenizer = functools.cache(vllm_serve.get_tokenizer)
        self.vllm_serve = vllm_serve
        self.parser = FlexibleArgumentParser()
        vllm_serve.add_cli_args(self.parser)
        self.model = model
        self.tokenizer = str(standin.ensure(cards.load(model)))

    def run(self, way: Way, load: Load, seed: int) -> dict[str, Any]:
        """One way under a load: vLLM's result, and the server's CPU time a request in ms."""
        before = server_cpu()
        result = self._measure(way.backend, way.route, load, seed)
        return {**result, "cpu_ms": (server_cpu() - before) * 1000 / load.requests}

    def in_turn(self, ways: Sequence[Way], load: Load, seed: int) -> dict[str, float]:
        """The median time to first token in ms of several ways, by their names."""
        turns = backends.InTurn([(way.backend, f"{VLLM}{way.route}") for way in ways])
        backends.register(backends.IN_TURN, turns)
        self._measure(backends.IN_TURN, ways[0].route, load, seed)
        found = zip(ways, turns.ttft, strict=True)
        return {way.name: statistics.median(seconds) * 1000 for way, seconds in found}

    def _measure(self, backend: str, route: str, load: Load, seed: int) -> dict[str, Any]:
        arguments = {
            "--model": self.model,
            "--tokenizer": self.tokenizer,
            "--tokenizer-mode": "mistral",
            "--backend": backend,
            "--base-url": VLLM,
            "--endpoint": route,
            "--dataset-name": "random",
            "--random-input-len": PROMPT_TOKENS,
            "--random-output-len": load.new_tokens,
            "--num-prompts": load.requests,
            "--max-concurrency": load.streams,
            "--seed": seed,
            "--extra-body": '{"temperature": 0}',
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        options = self.parser.parse_args(
            [*words, "--ignore-eos", "--disable-tqdm", "--save-detailed"]
        )
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result: dict[str, Any] = asyncio.run(self.vllm_serve.main_async(options))
        if result["completed"] != load.requests:
            failed = load.requests - result["completed"]
            why = next((error for error in result["errors"] if error), "no reason given")
            raise BenchError(f"{failed} of {load.requests} requests failed, {backend}: {why}")
        return result


def server_cpu() -> float:
    """CPU time the server has used, in seconds, from its metrics."""
    with serve.DIRECTLY.open(f"{VLLM}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("process_cpu_seconds_total "):
                return float(line.split()[1])
    raise BenchError("vLLM's metrics have no process_cpu_seconds_total")


def measure(model: str, plan: Plan) -> dict[str, Rounds]:
    """The rounds of every figure, by its title."""
    bench = Bench(model)
    rounds: dict[str, Rounds] = {figure.title: [] for figure in FIGURES}
    with server(model):
        console.print("warming up")
        for way in WAYS:  # nothing is measured cold
            bench.run(way, plan.many, seed=0)
        for number in range(plan.rounds):
            turn = number % len(WAYS)
            order = [*WAYS[turn:], *WAYS[:turn]]
            # a prompt that comes again would be answered from the prefix cache
            seeds = itertools.count(1 + 10 * number)
            with console.status(f"round {number + 1} of {plan.rounds}"):
                got = {way.name: bench.run(way, plan.many, next(seeds)) for way in order}
                ttft = bench.in_turn(order, plan.one, next(seeds))
            rounds[THROUGHPUT.title].append({n: got[n]["output_throughput"] for n in got})
            rounds[CPU.title].append({name: got[name]["cpu_ms"] for name in got})
            rounds[TTFT.title].append(ttft)
            shown = ", ".join(f"{got[way.name]['output_throughput']:.0f}" for way in WAYS)
            console.print(f"round {number + 1} of {plan.rounds}: {shown} tokens/s")
    return rounds

"""A server with two doors (bench/bypass.py), and `vllm bench serve` in front of it."""

import asyncio
import contextlib
import functools
import io
import itertools
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import backends, bypass, cpu, images
from bench.backends import Send
from bench.errors import BenchError
from bench.metrics import DTYPE, Figures, Load, Way, measured, turned
from deploy.cards import Card
from deploy.config import PORT, render
from deploy.options import Options
from local import processes
from local.standins import cache
from local.truss import is_ready, stage

VLLM = f"http://127.0.0.1:{PORT}"  # past nginx
CHAT = "/v1/chat/completions"

console = Console(stderr=True)


def with_doors(card: Card, flags: Mapping[str, str]) -> str:
    """The config.yaml of a card with the switch in the place of the classes, one worker, and other
    values for some of the start command's flags."""
    ours = {"--middleware": "bench_switch.Switch", "--dtype": DTYPE}
    return render(card, Options(workers=1), {**ours, **flags})


@contextlib.contextmanager
def server(card: Card, flags: Mapping[str, str] | None = None) -> Iterator[None]:
    """The Truss of a card with two doors, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        truss, log = Path(folder) / "truss", Path(folder) / "log"
        truss.mkdir()
        stage(with_doors(card, flags or {}), truss)
        (truss / "packages" / "bench_switch.py").write_text(Path(bypass.__file__).read_text())
        process = processes.launch("--truss", str(truss), log=log)
        try:
            started = time.monotonic()
            while not is_ready():
                if (
                    process.poll() is not None
                    or time.monotonic() - started > processes.START_SECONDS
                ):
                    last = log.read_text(errors="replace").splitlines()[-1:]
                    raise BenchError(f"vLLM did not start: {' '.join(last)}")
                time.sleep(0.5)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@dataclass(frozen=True)
class Asked:
    """What came of requests: vLLM's `RequestFuncOutput`s, all of which succeeded, the seconds they
    took together, and the CPU time in s that went into them, where it was read."""

    outputs: Sequence[Any]
    seconds: float
    cpu: Mapping[str, float]


class Bench:
    """`vllm bench serve`, called as often as needed without its seconds of imports."""

    def __init__(self, card: Card, model: str, base_url: str = VLLM, endpoint: str = CHAT) -> None:
        """`model` is the name requests ask for; the tokenizer is the card's."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from vllm.benchmarks import serve as vllm_serve
            from vllm.utils.argparse_utils import FlexibleArgumentParser
        self.table = backends.registered()
        self.table[backends.TEXT] = backends.text_stream
        self.table[backends.WAYS] = backends.text_stream  # so that the parser knows its name
        # it reads the tokenizer anew in each run, for seconds
        if not hasattr(vllm_serve.get_tokenizer, "cache_info"):
            vllm_serve.get_tokenizer = functools.cache(vllm_serve.get_tokenizer)
        self.vllm_serve = vllm_serve
        self.parser = FlexibleArgumentParser()
        vllm_serve.add_cli_args(self.parser)
        self.model, self.base_url, self.endpoint = model, base_url, endpoint
        self.tokenizer = str(cache.ensure(card, console=console))
        self.meter: cpu.Meter | None = None  # of the server, once it runs
        # a prompt that comes again would be answered from the prefix cache
        self.seeds = itertools.count(1)

    def seed_from(self, seed: int) -> None:
        self.seeds = itertools.count(seed)

    def run(self, way: Way, load: Load) -> Figures:
        """One way under a load."""
        return figures([self.asked(way, load)])

    def asked(self, way: Way, load: Load) -> Asked:
        turns, seconds, cpu = self._measure([way], load)
        return Asked(turns.outputs[0], seconds, cpu)

    def in_turn(self, ways: Sequence[Way], load: Load) -> dict[str, Figures]:
        """Several ways, request by request, by their names; one stream in all. Throughput is that
        of the requests put one after the other."""
        turns, _, _ = self._measure(ways, load)
        return {
            way.name: figures([Asked(outputs, sum(output.latency for output in outputs), {})])
            for way, outputs in zip(ways, turns.outputs, strict=True)
        }

    def _measure(
        self, ways: Sequence[Way], load: Load
    ) -> tuple[backends.InTurn, float, dict[str, float]]:
        """What came of each way's turns, the seconds they took, and the CPU time in s."""
        seed, requests = next(self.seeds), load.requests * len(ways)
        turns = backends.InTurn(
            [(self._send(way, load, (seed, place)), way.url) for place, way in enumerate(ways)]
        )
        read = self.meter.read if self.meter else dict[str, float]
        self.table[backends.WAYS], readings = backends.metered(turns, requests, read)
        arguments = {
            "--model": self.model,
            "--tokenizer": self.tokenizer,
            "--tokenizer-mode": "mistral",
            "--backend": backends.WAYS,
            "--base-url": self.base_url,
            "--endpoint": self.endpoint,
            "--dataset-name": "random",
            "--random-input-len": load.prompt_tokens,
            "--random-output-len": load.new_tokens,
            "--num-prompts": requests,
            "--max-concurrency": load.streams,
            "--seed": seed,
            "--ready-check-timeout-sec": 0,
            "--extra-body": '{"temperature": 0}',
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        options = self.parser.parse_args(
            [*words, "--ignore-eos", "--disable-tqdm", "--save-detailed"]
        )
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result: dict[str, Any] = asyncio.run(self.vllm_serve.main_async(options))
        if result["completed"] != requests:
            failed = requests - result["completed"]
            why = next((error for error in result["errors"] if error), "no reason given")
            names = ", ".join(way.name for way in ways)
            raise BenchError(
                f"{failed} of {requests} requests failed at {load.shown}, {names}: "
                f"{why.strip().splitlines()[-1]}"
            )
        before, after = readings
        cpu = {name: spent - before[name] for name, spent in after.items()}
        return turns, result["duration"], cpu

    def _send(self, way: Way, load: Load, seed: tuple[int, int]) -> Send:
        send = self.table[way.backend]
        if not load.images:
            return send
        # made before anything is sent: no time of the client's is to go into it later
        wanted = range(load.requests * load.images)
        urls = [images.data_url(load.image_bytes, hash((*seed, n))) for n in wanted]
        return backends.with_images(send, iter(urls), load.images)


def figures(pieces: Sequence[Asked]) -> Figures:
    """Of all pieces of a load together; CPU time is in µs a token."""
    outputs = [output for piece in pieces for output in piece.outputs]
    seconds = sum(piece.seconds for piece in pieces)
    tokens = sum(output.output_tokens for output in outputs)
    found = measured(
        seconds, tokens, [output.ttft for output in outputs], [output.itl for output in outputs]
    )
    cpu = {name: sum(piece.cpu[name] for piece in pieces) for name in pieces[0].cpu}
    return found | {name: spent * 1_000_000 / tokens for name, spent in cpu.items()}


def under(bench: Bench, ways: Sequence[Way], load: Load) -> dict[str, Figures]:
    """All ways under a load: at one stream request by request, else piece by piece."""
    if load.streams == 1:
        return bench.in_turn(ways, load)
    found: dict[str, list[Asked]] = {way.name: [] for way in ways}
    for number, piece in enumerate(load.pieces):
        for way in turned(ways, number):
            found[way.name].append(bench.asked(way, piece))
    return {name: figures(pieces) for name, pieces in found.items()}

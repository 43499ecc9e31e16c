"""`vllm bench serve`, called repeatedly without its seconds of imports.

Promises: every request succeeds, or the run ends with the first error; prompts and images are new
in each run unless the load says otherwise.
"""

import asyncio
import contextlib
import functools
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from bench import backends, images
from bench.backends import Send
from bench.cpu import Meter
from bench.errors import BenchError
from bench.metrics import Load, Metrics, Way, measured, turned
from deploy.cards import Card
from local.standins import cache
from local.truss import URL

CHAT = "/v1/chat/completions"

console = Console(stderr=True)


@dataclass(frozen=True)
class Answers:
    """Successful `RequestFuncOutput`s of vLLM, the seconds they took together, and their CPU time
    in s, if it was read."""

    outputs: Sequence[Any]
    seconds: float
    cpu: Mapping[str, float]


class Bench:
    def __init__(self, card: Card, model: str, base_url: str = URL, endpoint: str = CHAT) -> None:
        """`model` is the name in the requests; the tokenizer is the card's."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from vllm.benchmarks import serve as vllm_serve
            from vllm.utils.argparse_utils import FlexibleArgumentParser
        self.table = backends.registered()
        self.table[backends.TEXT] = backends.text_stream
        self.table[backends.WAYS] = backends.text_stream  # so that the parser knows its name
        # vLLM would reload the tokenizer in each run, for seconds
        if not hasattr(vllm_serve.get_tokenizer, "cache_info"):
            vllm_serve.get_tokenizer = functools.cache(vllm_serve.get_tokenizer)
        self.vllm_serve = vllm_serve
        self.parser = FlexibleArgumentParser()
        vllm_serve.add_cli_args(self.parser)
        self.model, self.base_url, self.endpoint = model, base_url, endpoint
        self.tokenizer = str(cache.ensure(card, console=console))
        self.meter: Meter | None = None  # of the server, once it runs
        self.seeds = itertools.count(1)  # a repeated prompt would be in the prefix cache

    def seed_from(self, seed: int) -> None:
        self.seeds = itertools.count(seed)

    def warm_up(self, ways: Sequence[Way], load: Load) -> None:
        """One request per stream to each way, without metrics."""
        for way in ways:
            self._run([way], replace(load, requests=load.streams))

    def under(self, ways: Sequence[Way], load: Load) -> dict[str, Metrics]:
        """Runs all ways under a load, in turn: with one stream request by request, else piece by
        piece. With one stream, throughput is of a way's requests in sequence, without CPU time."""
        found: dict[str, list[Answers]] = {way.name: [] for way in ways}
        if load.streams == 1:
            turns, _, _ = self._run(ways, load)
            for way, outputs in zip(ways, turns.outputs, strict=True):
                seconds = sum(output.latency for output in outputs)
                found[way.name].append(Answers(outputs, seconds, {}))
        else:
            for number, piece in enumerate(load.pieces):
                for way in turned(ways, number):
                    turns, seconds, cpu = self._run([way], piece)
                    found[way.name].append(Answers(turns.outputs[0], seconds, cpu))
        return {name: metrics(pieces) for name, pieces in found.items()}

    def _run(
        self, ways: Sequence[Way], load: Load
    ) -> tuple[backends.InTurn, float, dict[str, float]]:
        """The results of each way's turns, the seconds they took, and the CPU time in s."""
        seed, requests = next(self.seeds), load.requests * len(ways)
        sends = [(self._send(way, load, (seed, place)), way) for place, way in enumerate(ways)]
        read = self.meter.read if self.meter else dict[str, float]
        turns = backends.InTurn(sends, requests, read)
        self.table[backends.WAYS] = turns
        arguments = {
            "--model": self.model,
            "--tokenizer": self.tokenizer,
            "--tokenizer-mode": "mistral",
            "--backend": backends.WAYS,
            "--base-url": self.base_url,
            "--endpoint": self.endpoint,
            "--dataset-name": "random",
            "--random-input-len": load.prompt_tokens,
            "--random-prefix-len": load.prefix_tokens,
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
            at = "one stream" if load.streams == 1 else f"{load.streams} streams"
            raise BenchError(
                f"{failed} of {requests} requests failed at {at}, {names}: "
                f"{why.strip().splitlines()[-1]}"
            )
        before, after = turns.readings
        cpu = {name: spent - before[name] for name, spent in after.items()}
        return turns, result["duration"], cpu

    def _send(self, way: Way, load: Load, seed: tuple[int, int]) -> Send:
        send = self.table[way.backend]
        if not load.images:
            return send
        # created before anything is sent, so that no later time of the client includes it
        wanted = load.images if load.same_images else load.requests * load.images
        urls = [images.data_url(load.image_bytes, hash((*seed, n))) for n in range(wanted)]
        return backends.with_images(send, itertools.cycle(urls), load.images)


def metrics(pieces: Sequence[Answers]) -> Metrics:
    """Metrics of all pieces of a load together; CPU time is in µs per token."""
    outputs = [output for piece in pieces for output in piece.outputs]
    seconds = sum(piece.seconds for piece in pieces)
    tokens = sum(output.output_tokens for output in outputs)
    found = measured(
        seconds, tokens, [output.ttft for output in outputs], [output.itl for output in outputs]
    )
    cpu = {name: sum(piece.cpu[name] for piece in pieces) for name in pieces[0].cpu}
    return found | {name: spent * 1_000_000 / tokens for name, spent in cpu.items()}

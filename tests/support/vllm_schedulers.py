"""vLLM's own schedulers with this project's turns, without a model: how long a short prompt waits
among long ones, and a chat that is in the prefix cache, in simulated time; a program, as its state
is global.

On a GPU, the scheduler plans a step while the GPU computes another, for the second model runner;
nothing else here uses either.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from deploy import cards

STEP_TOKENS = 2048
TOKEN_SECONDS, BASE_SECONDS = 0.0001, 0.01  # of a step: 0.2 s with all tokens
LONG, SHORT, COUNT = 6000, 20, 8
CHAT, BLOCK = 6000, 16  # tokens: of a chat that is cached except for SHORT, and of a block
KINDS = {"one step": 1, "two steps": 2, "second model runner": 2}  # concurrent steps


class Run:
    """Steps of a scheduler, which end in order. `depth`: concurrent steps."""

    def __init__(self, scheduler: Any, depth: int) -> None:
        self.scheduler, self.depth = scheduler, depth
        self.now = self.busy_until = 0.0
        self.under_way: deque[tuple[Any, list[str], float]] = deque()
        self.first: dict[str, float] = {}  # the time of a request's first token

    def add(self, name: str, tokens: list[int]) -> None:
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core import kv_cache_utils
        from vllm.v1.request import Request

        kv_cache_utils.init_none_hash(sha256)
        hashes = kv_cache_utils.get_request_block_hasher(BLOCK, sha256)
        asked = SamplingParams(max_tokens=2, ignore_eos=True)
        self.scheduler.add_request(Request(name, tokens, asked, None, block_hasher=hashes))

    def wait_of(self, name: str, tokens: list[int]) -> float:
        """Seconds until the request's first token."""
        began = self.now
        self.add(name, tokens)
        return self.until(name) - began

    def schedule(self) -> bool:
        output = self.scheduler.schedule()
        requests = self.scheduler.requests
        ready = [
            name for name in output.num_scheduled_tokens if not requests[name].is_prefill_chunk
        ]
        tokens = output.total_num_scheduled_tokens
        if tokens:
            seconds = BASE_SECONDS + TOKEN_SECONDS * tokens
            self.busy_until = max(self.now, self.busy_until) + seconds
            self.under_way.append((output, ready, self.busy_until))
        return bool(tokens)

    def end_one(self) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        output, ready, self.now = self.under_way.popleft()
        names = list(output.num_scheduled_tokens)
        places = {name: place for place, name in enumerate(names)}
        sampled = [[7] if name in ready else [] for name in names]
        for name in ready:
            self.first.setdefault(name, self.now)
        self.scheduler.update_from_output(output, ModelRunnerOutput(names, places, sampled))

    def step(self) -> None:
        while len(self.under_way) < self.depth and self.schedule():
            pass
        self.end_one()

    def until(self, name: str) -> float:
        while name not in self.first:
            self.step()
        return self.first[name]


def scheduler_of(kind: str, folder: Path, threshold: int) -> Any:
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config = EngineArgs(
        model=str(folder),
        config_format="mistral",
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype="bfloat16",
        max_model_len=8192,
        max_num_seqs=64,
        max_num_batched_tokens=STEP_TOKENS,
        long_prefill_token_threshold=threshold,
        long_prefill_token_threshold_adaptive=bool(threshold),
        async_scheduling=KINDS[kind] > 1,
    ).create_engine_config()
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.bfloat16)
    cache = KVCacheConfig(10_000, [], [KVCacheGroupSpec(["layer"], spec)])
    config.cache_config.num_gpu_blocks = 10_000
    made = AsyncScheduler if KINDS[kind] > 1 else Scheduler
    scheduler = made(config, cache, StructuredOutputManager(config), block_size=BLOCK)
    scheduler.use_v2_model_runner = kind == "second model runner"
    return scheduler


def waits(
    kind: str, folder: Path, threshold: int = 0, cached: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Seconds that short prompts waited for their first token, one after the other, and the time of
    the last long one's. `threshold`: vLLM's, adaptive. `cached`: the beginning of each short
    prompt, which was requested before."""
    from predict import prefill_turns

    run = Run(scheduler_of(kind, folder, threshold), KINDS[kind])
    prefill_turns.turns.__init__()  # type: ignore[misc]  # reset, for another scheduler
    with mock.patch("predict.prefill_turns.time", SimpleNamespace(monotonic=lambda: run.now)):
        run.wait_of("before", [*cached, 2])
        for number in range(COUNT):
            run.add(f"long{number}", [number + 3, *[1] * (LONG - 1)])
        run.step()
        short = [run.wait_of(f"short{n}", [*cached, *[n + 3] * SHORT]) for n in range(10)]
        last = max(run.until(f"long{number}") for number in range(COUNT))
    return {"short": short, "last": last, "failed": prefill_turns.turns.failed}


def of_each(folder: Path) -> dict[str, dict[str, Any]]:
    chat = (2,) * CHAT
    return {
        "short": {kind: waits(kind, folder) for kind in KINDS},
        "cached": {kind: waits(kind, folder, cached=chat) for kind in KINDS},
        "adaptive": {kind: waits(kind, folder, threshold=25) for kind in KINDS},
    }


def main() -> None:
    from predict import plugin

    from tests.support.vllm_figures import write_config

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        write_config(cards.load("mistral-7b"), Path(folder))
        stock = of_each(Path(folder))
        plugin.register()
        ours = of_each(Path(folder))
    print(json.dumps({"stock": stock, "ours": ours}))


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_CPU_KVCACHE_SPACE="1")
    os.environ["VLLM_PLUGINS"] = "none"  # until vLLM's own schedulers are inspected
    main()

"""The engine's start alone, by `vllm bench startup`, with empty caches of vLLM's and kept ones.

Promises: vLLM measures; what it started is ended with it.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError
from bench.figures import head, row, spread
from bench.startup_ways import today
from local import sandbox
from scripts import render, serve, standin
from scripts.cards import Card

VLLM = str(sandbox.VENV / "bin" / "vllm")

# `vllm bench startup`: with torch.compile, which the local run otherwise leaves out
STARTS = {"--num-iters-cold": 2, "--num-iters-warmup": 1, "--num-iters-warm": 2}
FLAGS = ("--config-format", "--load-format", "--tokenizer-mode", "--max-model-len")

# How they are shown, by the name of vLLM's figure. Its figure of torch.compile's part is left out:
# it was 0 here, with caches and without.
FIGURES = {"cold_startup_times": "empty", "warm_startup_times": "kept"}

TEXT = """\
Cold and warm in another way: the engine alone, without the API server, by `vllm bench startup`,
with torch.compile, which the local run leaves out: what a replica gains that finds the caches of an
earlier one.
"""


def measure(card: Card) -> dict[str, Any]:
    """`vllm bench startup`: seconds of the engine alone, with empty and with kept caches."""
    flags = render.serve_arguments(today(card).command)
    given = [word for flag in FLAGS for word in (flag, flags[flags.index(flag) + 1])]
    iterations = [str(word) for pair in STARTS.items() for word in pair]
    local = yaml.safe_load(serve.LOCAL_ENVIRONMENT.read_text(encoding="utf-8"))
    del local["TORCH_COMPILE_DISABLE"]
    with tempfile.TemporaryDirectory(prefix="bench-home-") as home:
        output = Path(home) / "startup.json"
        given += ["--model", str(standin.ensure(card)), "--dtype", "bfloat16"]
        process = subprocess.Popen(
            [VLLM, "bench", "startup", *iterations, *given, "--output-json", str(output)],
            env={**sandbox.IMAGE_ENVIRONMENT, **local, "HOME": home, "HF_HUB_OFFLINE": "1"}
            | {"TORCHINDUCTOR_CACHE_DIR": f"{home}/inductor"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, said = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):  # a stop ends its engines too
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise BenchError(f"vllm bench startup failed: {said.splitlines()[-1:]}")
        figures: dict[str, Any] = json.loads(output.read_text())
    return {name: figures[name] for name in FIGURES}


def table(engine: Mapping[str, Sequence[float]]) -> list[str]:
    lines = head("caches", "seconds")
    return [*lines, *(row(shown, spread(engine[it]).shown(1)) for it, shown in FIGURES.items())]

"""What single steps shorten a start by, and kept caches: a part of `make bench`.

Promises: as in bench/startup.py, the ways to start take turns.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError
from bench.figures import spread
from bench.session import Session
from bench.startup import CONTAINER, in_turn, seconds_of
from bench.startup_ways import Way, in_container, question, today
from local import sandbox
from scripts import cards, render, serve, standin
from scripts.cards import Card

ROUNDS = 5

PREPARED = "/packages/start"
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nowhere"}

VLLM = str(sandbox.VENV / "bin" / "vllm")

# `vllm bench startup`: with torch.compile, which the local run otherwise leaves out
ENGINE_STARTS = {"--num-iters-cold": 2, "--num-iters-warmup": 1, "--num-iters-warm": 2}
ENGINE_FLAGS = ("--config-format", "--load-format", "--tokenizer-mode", "--max-model-len")

ENGINE_FIGURES = [
    f"{caches}_{what}_times" for caches in ("cold", "warm") for what in ("startup", "compilation")
]

SINGLE_TEXT = """\
What single steps are worth: taken away one at a time, or, the plugins, tried and dropped.
"""

ENGINE_TEXT = """\
The engine alone, without the API server, by `vllm bench startup`, with torch.compile, which the
local run leaves out: what a replica gains that finds the caches of an earlier one.
"""


def variations(card: Card) -> dict[str, Way]:
    """What single steps are worth: this Truss, and without one or with one more, by what it is."""
    asked, now = question(card), today(card)
    trusses = {
        CONTAINER: now,
        "without the model infos": now.without(f"{PREPARED}/modelinfos"),
        "without the rest of the garbage collector": now.without(f"{PREPARED}/sitecustomize.py"),
        "without Python's bytecode": now.with_variables(NO_BYTECODE),
        "with no plugins loaded, `VLLM_PLUGINS=`": now.with_variables({"VLLM_PLUGINS": ""}),
    }
    return {name: in_container(truss, asked) for name, truss in trusses.items()}


def engine_starts(card: Card) -> dict[str, Any]:
    """`vllm bench startup`: seconds of the engine alone, with empty and with kept caches."""
    flags = render.serve_arguments(today(card).command)
    given = [word for flag in ENGINE_FLAGS for word in (flag, flags[flags.index(flag) + 1])]
    iterations = [str(word) for pair in ENGINE_STARTS.items() for word in pair]
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
    return {name: figures[name] for name in ENGINE_FIGURES}


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    card = cards.load(model or cards.DEFAULT_MODEL)
    compared, rounds = variations(card), 1 if quick else ROUNDS
    with session.expecting(rounds + 1, 30 * len(compared)):
        found = in_turn(session, "without a step", compared, rounds)
        (engine,) = session.each("vllm bench startup", 1, lambda _: engine_starts(card))
    return {"model": card.name, "rounds": seconds_of(found), "engine": engine}


def section(results: dict[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    return [
        "## What shortens a start",
        "",
        SINGLE_TEXT,
        *single_table(results["rounds"]),
        "",
        ENGINE_TEXT,
        *engine_table(results["engine"]),
    ]


def single_table(rounds: list[dict[str, float]]) -> list[str]:
    lines = ["| this Truss | seconds | seconds more, a round |", "| --- | --- | --- |"]
    for name in rounds[0]:
        values = spread(done[name] for done in rounds).shown(1)
        more = spread(done[name] - done[CONTAINER] for done in rounds).shown(1)
        lines.append(f"| {name} | {values} | {'' if name == CONTAINER else more} |")
    return lines


def engine_table(engine: dict[str, list[float]]) -> list[str]:
    lines = ["| caches | seconds | of which torch.compile |", "| --- | --- | --- |"]
    for caches, shown in {"cold": "empty", "warm": "kept"}.items():
        columns = [spread(engine[f"{caches}_{what}_times"]) for what in ("startup", "compilation")]
        lines.append(f"| {shown} | {' | '.join(column.shown(1) for column in columns)} |")
    return lines

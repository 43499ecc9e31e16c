"""The plan's KV cache is the one vLLM allocates; one worker answers as two do."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import cards, memory
from deploy.cards import Card
from deploy.sections import Architecture
from local.processes import command_lines, launch, tail, wait_until_ready
from local.standins import cache
from local.truss import environment, tensor_parallel_size
from tests.support import faults, load
from tests.support.container import Running, gone, leftovers
from tests.support.dialogues import wrong_answers
from tests.support.timing import container_start

MODEL = "mixtral-8x7b"
MIXTRAL = cards.load(MODEL)
CPU_BLOCK = 128  # tokens in a block of the KV cache on CPUs


def shape(card: Card) -> Architecture:
    """The card's architecture with the sizes of its stand-in, as its files have them."""
    folder = cache.ensure(card)
    if card.formats.config == "mistral":
        found = json.loads((folder / "params.json").read_text())
        names = ("n_layers", "n_kv_heads", "head_dim")
    else:
        found = json.loads((folder / "config.json").read_text())
        names = ("num_hidden_layers", "num_key_value_heads", "head_dim")
    layers, kv_heads, head_dim = (found[name] for name in names)
    sizes = {"layers": layers, "kv_heads": kv_heads, "head_dim": head_dim}
    return card.architecture.model_copy(update=sizes)


def test_the_planned_kv_cache_is_the_one_vllm_reports(container: Running) -> None:
    size = int(environment(container.deployment.config)["VLLM_CPU_KVCACHE_SPACE"]) * memory.GIB
    workers = tensor_parallel_size(container.deployment.config)
    planned = memory.kv_tokens(shape(container.card), size, workers, CPU_BLOCK)
    logged = re.search(r"KV cache size: ([\d,]+) tokens", container.log.read_text())
    assert logged
    assert planned == pytest.approx(int(logged[1].replace(",", "")), rel=0.01)


@pytest.mark.parametrize("container", [MIXTRAL.name], indirect=True)
def test_mixtral_runs_on_two_workers(container: Running) -> None:
    """Its shared container, of which test_answers.py asks everything."""
    assert len(list(worker_processes())) == 2


@pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)
def test_mixtral_answers_exactly_on_one_worker_and_stops_while_its_engine_hangs(
    container: None, tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    process = launch("--model", MIXTRAL.name, "--tensor-parallel-size", "1", log=log)
    try:
        with container_start(MIXTRAL.name):
            wait_until_ready(process, log)
        assert list(worker_processes()) == []
        assert wrong_answers(MIXTRAL) == {}
        with load.flowing(MIXTRAL.name, 4, **load.ENDLESS):
            faults.send(faults.ENGINE, signal.SIGSTOP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(faults.END_SECONDS) == 0, tail(log)
            assert gone(), leftovers()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def worker_processes() -> Iterator[int]:
    """vLLM's tensor-parallel workers; a single one is in the engine's process."""
    for pid, words in command_lines():
        if words[0].startswith("VLLM::Worker_TP"):
            yield pid

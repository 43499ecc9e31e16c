"""The plan's KV cache is what vLLM allocates; the workers are those the plan names."""

import json
import re

import pytest

from deploy import memory
from deploy.cards import Card
from deploy.sections import Architecture
from local.standins import cache
from local.truss import environment, tensor_parallel_size
from tests.support import faults
from tests.support.container import Running

CPU_BLOCK = 128  # tokens in a block of the KV cache on CPUs


def shape(card: Card) -> Architecture:
    """The card's architecture with the sizes of its stand-in, from its files."""
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


@pytest.mark.parametrize("container", ["mixtral-8x7b"], indirect=True)
def test_mixtral_runs_on_two_workers(container: Running) -> None:
    """test_answers.py tests their answers; test_adapters.py has Mixtral on one worker."""
    assert len(faults.processes_of(faults.WORKER)) == 2

"""The plan's KV cache is the one vLLM makes; a model on one worker answers as on two."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from deploy import cards, memory
from deploy.cards import Architecture, Card
from deploy.paths import ROOT
from local.processes import command_lines, launch, stop, tail, wait_until_ready
from local.standins import cache
from local.standins.corpus import chat, dialogues
from local.truss import URL, tensor_parallel_size
from tests.support.container import Running, gone

MIXTRAL = cards.load("mixtral-8x7b")
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
    local = yaml.safe_load((ROOT / "local" / "environment.yaml").read_text())
    size = int(local["VLLM_CPU_KVCACHE_SPACE"]) * memory.GIB
    workers = tensor_parallel_size(container.deployment.config)
    planned = memory.kv_tokens(shape(container.card), size, workers, CPU_BLOCK)
    logged = re.search(r"KV cache size: ([\d,]+) tokens", container.log.read_text())
    assert logged
    assert planned == pytest.approx(int(logged[1].replace(",", "")), rel=0.01)


@pytest.mark.parametrize("container", [None], indirect=True)
@pytest.mark.parametrize("workers", ["2", "1"])
def test_mixtral_answers_to_the_letter_on_two_workers_and_on_one(
    container: None, workers: str, tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    words = ["--model", MIXTRAL.name, "--tensor-parallel-size", workers]
    process = launch(*words, log=log)
    try:
        wait_until_ready(process, log)
        assert len(list(worker_processes())) == (2 if workers == "2" else 0)
        known = dialogues(images=False)
        chats = {name: chat(turns) for name, turns in known.items()}
        with ThreadPoolExecutor(4) as pool:
            got = pool.map(lambda one: answer(one[0]), chats.values())
        expected = {name: text for name, (_, text) in chats.items()}
        assert dict(zip(chats, got, strict=True)) == expected
        assert stop(process) == 0, tail(log)
        assert gone()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def answer(messages: object) -> str:
    import httpx

    body = {"messages": messages, "max_tokens": 200}
    response = httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    return str(response.json()["choices"][0]["message"]["content"])


def worker_processes() -> Iterator[int]:
    """vLLM's tensor-parallel workers; a single one is in the engine's process."""
    for pid, words in command_lines():
        if words[0].startswith("VLLM::Worker_TP"):
            yield pid

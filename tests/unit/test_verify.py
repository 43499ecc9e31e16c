"""What a deployment says of itself, beside its plan."""

from typing import Any

import pytest

from deploy import cards, fit, verify
from deploy.config import planned, render, vllm_version
from deploy.memory import GIB, kv_bytes_per_token
from deploy.options import Options
from deploy.verify import Comparison

CARD = cards.load("mistral-7b")
DEFAULT = Options()
NAMES: list[dict[str, Any]] = [
    {"id": "mistral-7b", "max_model_len": 32768},
    {"id": "mistralai/Mistral-7B", "parent": None},
]


def metric(name: str, **labels: object) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"# HELP {name} text\n# TYPE {name} gauge\n{name}{{{inside}}} 1.0\n"


def compared(
    options: Options = DEFAULT,
    tokens: float = 1,
    models: list[dict[str, Any]] | None = None,
    **ours: object,
) -> dict[str, Comparison]:
    """Rows by name, of a server that has `tokens` times the planned KV cache and is else as planned
    but for `ours`."""
    chosen = planned(CARD, options)
    said = {
        "version": vllm_version(),
        "device": "NVIDIA A10G",
        "gpus": 1,
        "driver": "580.65.06",
        "dtype": "float16",
        "quantization": "none",
        "max_num_seqs": chosen.max_num_seqs,
        "tools": "mistral",
        **ours,
    }
    blocks = int(chosen.kv_tokens * tokens) // 16
    text = metric(verify.OURS, **said) + metric(verify.CACHE, num_gpu_blocks=blocks, block_size=16)
    listed = models or [{**NAMES[0], "max_model_len": chosen.context}, NAMES[1]]
    rows = verify.compare(render(CARD, options), chosen, vllm_version(), verify.seen(text, listed))
    return {row.name: row for row in rows}


def test_what_is_as_planned_agrees() -> None:
    rows = compared()
    assert {row.agrees for row in rows.values()} == {True}
    assert rows["hardware"].seen == "NVIDIA A10G × 1, driver 580.65.06"


@pytest.mark.parametrize(
    ("name", "ours", "found"),
    [
        ("vLLM", {"version": "0.31.0"}, "0.31.0"),
        ("hardware", {"device": "NVIDIA A100-SXM4-80GB"}, "NVIDIA A100-SXM4-80GB × 1"),
        ("hardware", {"gpus": 2}, "NVIDIA A10G × 2"),
        ("precision", {"dtype": "bfloat16"}, "bfloat16, not quantized"),
        ("precision", {"quantization": "fp8"}, "float16, fp8"),
        ("batched requests", {"max_num_seqs": 8}, "8"),
        ("tools", {"tools": "none"}, "none"),
    ],
)
def test_what_is_not_as_planned_differs(name: str, ours: dict[str, object], found: str) -> None:
    rows = compared(**ours)  # type: ignore[arg-type]
    assert rows[name].agrees is False
    assert rows[name].seen.startswith(found)
    assert [row.name for row in rows.values() if not row.agrees] == [name]


def test_another_context_or_adapters_differ() -> None:
    rows = compared(models=[{**NAMES[0], "max_model_len": 4096}])
    assert (rows["context, tokens"].seen, rows["context, tokens"].agrees) == ("4096", False)
    rows = compared(models=[NAMES[0], {"id": "legal", "parent": "mistral-7b"}])
    assert (rows["adapters"].planned, rows["adapters"].seen) == ("none", "legal")
    assert rows["adapters"].agrees is False


def test_what_vllm_quantizes_itself_agrees() -> None:
    options = Options(gpu="L4", precision="fp8")
    for name in ("fp8_per_channel", "online"):
        rows = compared(options, device="NVIDIA L4", dtype="float16", quantization=name)
        assert rows["precision"].agrees
        assert rows["hardware"].agrees
    assert not compared(options, device="NVIDIA L40S")["hardware"].agrees


def test_weights_that_are_quantized_already_agree_as_they_are() -> None:
    options = Options(weights="s3://acme/support", quantized="awq")
    row = compared(options, quantization="awq_marlin")["precision"]
    assert (row.planned, row.agrees) == ("awq: float16, quantized", True)
    assert compared(options)["precision"].agrees is False


def test_own_weights_that_turn_out_quantized_differ_and_say_what_to_do() -> None:
    row = compared(Options(weights="s3://acme/support"), quantization="awq")["precision"]
    assert row.agrees is False
    assert row.note == "the weights are quantized, and QUANTIZED= tells the plan how"


def test_a_kv_cache_of_another_type_is_not_compared() -> None:
    row = compared(Options(vllm_args="--kv-cache-dtype fp8"), tokens=2)["KV cache, tokens"]
    assert row.agrees is None
    assert row.note.startswith("--kv-cache-dtype fp8 changes it")


def test_a_smaller_kv_cache_differs_and_says_which_figure_is_off_by_how_much() -> None:
    chosen = fit.choose(CARD)
    row = compared(tokens=0.9)["KV cache, tokens"]
    missing = (chosen.kv_tokens - int(row.seen)) * kv_bytes_per_token(CARD.architecture) / GIB
    usable = chosen.gpu.usable - missing / chosen.utilization
    assert row.agrees is False
    assert f"{-missing:+.2f} GiB a GPU" in row.note
    assert f"A10G: usable: 21.99 would have to be {usable:.2f}" in row.note
    assert "deploy/plan.py" in row.note


def test_a_kv_cache_larger_than_the_gpu_is_of_other_weights() -> None:
    row = compared(tokens=250)["KV cache, tokens"]
    assert row.agrees is False
    assert "other weights" in row.note


def test_a_larger_kv_cache_is_said_and_no_fault() -> None:
    row = compared(tokens=1.2)["KV cache, tokens"]
    assert row.agrees
    assert row.note.startswith("+20.0%, +")
    assert compared(tokens=1.01)["KV cache, tokens"].note == "+1.0%"


def test_what_cannot_be_compared_says_why() -> None:
    rows = compared(device="cpu")
    assert {name for name, row in rows.items() if row.agrees is None} == {
        "hardware",
        "KV cache, tokens",
    }
    rows = {
        row.name: row
        for row in verify.compare(
            render(CARD, Options()), fit.choose(CARD), "0.32.0", verify.seen("", [])
        )
    }
    assert {row.agrees for name, row in rows.items() if name != "adapters"} == {None}
    assert all(row.note for name, row in rows.items() if name != "adapters")


@pytest.mark.parametrize(
    "words",
    [
        ["--lora-modules", "legal=/models/a", "medical=/models/b", "--seed", "1"],
        ["--lora_modules", '{"name": "legal", "path": "/a"}', '{"name": "medical", "path": "/b"}'],
    ],
)
def test_adapters_are_read_from_the_start_command(words: list[str]) -> None:
    assert verify.adapters_of(["serve", "x", *words]) == ["legal", "medical"]


def test_the_report_is_a_table() -> None:
    lines = verify.as_markdown(compared(tokens=0.5).values()).splitlines()
    assert lines[2].startswith("| vLLM | ")
    assert "**differs**" in lines[-1]

import itertools
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy import cards, fit, memory, plan
from deploy.cards import Card
from deploy.config import render
from deploy.gpus import Gpu
from deploy.memory import GIB
from deploy.options import Options
from deploy.plan import Plan
from deploy.precisions import PRECISIONS, Precision
from deploy.sections import LONGEST_STARTUP, USUAL_STARTUP
from deploy.start_command import argument, serve_arguments, start_command
from tests.support.cards import QUANTIZED, with_quantized
from tests.support.plans import CARDS, GPUS, a_card, accepted

a_gpu = st.sampled_from(GPUS)

a_precision = st.sampled_from([one for one in PRECISIONS.values() if not one.repo])


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_card_s_own_hardware_runs_it_at_full_length(card: Card) -> None:
    chosen = fit.choose(card)
    hardware = card.hardware
    assert chosen.accelerator == f"{hardware.accelerator}:{hardware.count}"
    assert chosen.dtype == hardware.precision
    assert chosen.context == card.context.length
    assert chosen.full_context_requests >= 1
    assert chosen.concurrency_target <= chosen.max_num_seqs <= 256


def test_a_gpu_without_a_count_gets_as_few_as_fit() -> None:
    card = cards.load("mixtral-8x7b")
    assert fit.choose(card, "A100", "bf16").count == 2
    assert fit.choose(card, "A100", "fp8").count == 1
    assert fit.choose(card, "A100:4", "fp8").count == 4
    assert fit.choose(card, "h200").count == 1


def test_a_longer_context_may_take_more_gpus() -> None:
    card = cards.load("pixtral-12b")
    assert fit.choose(card, "A10G").count == 2
    assert fit.choose(card, "A10G").context < card.context.length
    assert fit.choose(card, "A10G", context=100000).count == 4


@pytest.mark.parametrize(
    ("precision", "quantization", "variables"),
    [
        ("bf16", None, {}),
        ("fp16", None, {}),
        ("fp8", "fp8_per_channel", {}),
        ("int8", "humming", {"dtype": "int8", "group_size": 0}),
        ("int4", "humming", {"dtype": "int4", "group_size": 128}),
    ],
)
def test_each_precision_becomes_flags(
    precision: str, quantization: str | None, variables: dict[str, object]
) -> None:
    config = yaml.safe_load(
        render(cards.load("mistral-7b"), Options(gpu="H100", precision=precision))
    )
    command = config["docker_server"]["start_command"]
    assert argument(command, "--quantization") == quantization
    got = config["environment_variables"].get("VLLM_HUMMING_ONLINE_QUANT_CONFIG", "{}")
    assert json.loads(got) == variables


@pytest.mark.parametrize(
    ("gpu", "precision", "dtype"),
    [
        ("T4", "int4", "float16"),
        ("A100", "int4", "bfloat16"),
        ("A100", "fp16", "float16"),
        ("L4", "fp8", "bfloat16"),
    ],
)
def test_what_is_not_quantized_is_in_what_the_gpu_computes(
    gpu: str, precision: str, dtype: str
) -> None:
    assert fit.choose(cards.load("pixtral-12b"), gpu, precision).dtype == dtype


def test_fp8_says_where_it_is_of_the_weights_only() -> None:
    card = cards.load("mixtral-8x7b")
    assert "weights only" in fit.choose(card, "A100", "fp8").note
    assert fit.choose(card, "H100", "fp8").note != fit.choose(card, "A100", "fp8").note


def test_fp8_has_a_scale_per_channel_where_the_gpu_multiplies_fp8() -> None:
    card = cards.load("mixtral-8x7b")
    for gpu, method in (("A100", "fp8_per_tensor"), ("L40S", "fp8_per_channel")):
        assert fit.choose(card, gpu, "fp8").quantization == method


def test_a_quantized_repo_of_the_card_is_deployed() -> None:
    card = with_quantized("mistral-7b")
    text = render(card, Options(gpu="A10G", precision="awq"))
    config = yaml.safe_load(text)
    weights, tokenizer = config["weights"]
    assert tokenizer["source"] == f"hf://{card.weights.repo}@{card.weights.revision}"
    assert weights["source"] == f"hf://{QUANTIZED['repo']}@{QUANTIZED['revision']}"
    assert weights["allow_patterns"] == QUANTIZED["files"]
    arguments = serve_arguments(start_command(text))
    assert arguments[arguments.index("--load-format") + 1] == "safetensors"
    assert arguments[arguments.index("--config-format") + 1] == "hf"
    assert "--quantization" not in arguments  # the repo's config.json says it
    awq, int4 = fit.choose(card, "A10G", "awq"), fit.choose(card, "A10G", "int4")
    assert 1 < awq.weights / int4.weights < 1.02  # zero points
    hub = render(card, Options("hub", gpu="A10G", precision="awq"))
    assert f"vllm serve {QUANTIZED['repo']}\n    --revision {QUANTIZED['revision']}" in hub


@given(a_card, a_gpu, a_precision, st.floats(0, 400), st.sampled_from([1, 2, 4, 8]))
def test_more_memory_never_fits_less(
    card: Card, gpu: Gpu, precision: Precision, more: float, count: int
) -> None:
    larger = gpu.model_copy(update={"usable": gpu.usable + more})
    with_less = Plan(card, gpu, count, precision)
    with_more = Plan(card, larger, count, precision)
    assert with_more.kv_tokens >= with_less.kv_tokens
    assert with_more.longest_context >= with_less.longest_context
    assert with_more.max_num_seqs >= with_less.max_num_seqs
    if accepted(card, gpu, count, precision):
        assert accepted(card, larger, count, precision)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_more_gpus_never_fit_less(card: Card, gpu: Gpu) -> None:
    for precision in PRECISIONS.values():
        plans = [accepted(card, gpu, count, precision) for count in gpu.counts]
        for fewer, more in itertools.combinations([one for one in plans if one], 2):
            assert more.kv_tokens >= fewer.kv_tokens
            assert more.longest_context >= fewer.longest_context
            assert more.requests_2k >= fewer.requests_2k
            assert more.max_num_seqs >= fewer.max_num_seqs
        # 3, 5, 6 and 7 GPUs do not divide the heads
        possible = [one for number, one in zip(gpu.counts, plans, strict=True) if 8 % number == 0]
        assert possible == sorted(possible, key=lambda one: one is not None)


@given(a_card, a_gpu, a_precision, st.integers(256, 128000), st.integers(256, 128000))
def test_a_longer_context_never_fits_more_requests(
    card: Card, gpu: Gpu, precision: Precision, one: int, other: int
) -> None:
    shorter, longer = sorted((one, other))
    with_longer = Plan(card, gpu, gpu.counts[-1], precision, longer)
    with_shorter = Plan(card, gpu, gpu.counts[-1], precision, shorter)
    assert with_longer.full_context_requests <= with_shorter.full_context_requests
    assert with_longer.requests_2k <= with_shorter.requests_2k
    assert with_longer.concurrency_target <= with_shorter.concurrency_target
    if longer <= card.context.length and accepted(card, gpu, None, precision, longer):
        least = memory.image_tokens(card.architecture)
        assert shorter < least or accepted(card, gpu, None, precision, shorter)


@given(a_card, a_gpu)
def test_fewer_bits_never_fit_less(card: Card, gpu: Gpu) -> None:
    count = gpu.counts[0]
    for more, fewer in itertools.pairwise(("fp16", "fp8", "int4")):
        assert (
            Plan(card, gpu, count, PRECISIONS[fewer]).kv_tokens
            >= Plan(card, gpu, count, PRECISIONS[more]).kv_tokens
        )


@given(a_card, a_gpu, a_precision)
def test_an_accepted_plan_keeps_within_the_gpu(card: Card, gpu: Gpu, precision: Precision) -> None:
    found = accepted(card, gpu, None, precision)
    if found is None:
        return
    used = found.weights / found.count + found.beside + found.kv_memory
    assert used <= found.gpu.usable * GIB * found.utilization + 1
    assert found.gpu.usable * (1 - found.utilization) * GIB >= plan.LEFT_FREE * 0.99
    assert found.kv_tokens * memory.kv_bytes_per_token(card.architecture) <= (
        found.kv_memory * found.count
    )
    assert fit.LEAST_CONTEXT <= found.context <= min(found.kv_tokens, card.context.length)
    assert 1 <= found.concurrency_target <= found.max_num_seqs <= plan.MOST_SEQUENCES


def test_a_plan_speaks_of_one_request_as_one() -> None:
    one = fit.choose(cards.load("mistral-7b"))
    assert one.full_context_requests == 1
    assert "a context of 32768 tokens, 1 such request at once, or 20 of 2048" in one.verdict
    assert "2 such requests at once" in fit.choose(cards.load("pixtral-12b")).verdict


def test_a_precision_whose_kernels_are_compiled_at_the_start_is_given_longer_for_it() -> None:
    card = cards.load("mixtral-8x7b")
    usual = max(card.hardware.startup_seconds, USUAL_STARTUP)
    for precision, more in (("bf16", 0), ("fp8", 0), ("int8", 600), ("int4", 600)):
        text = render(card, Options(gpu="A100:2", precision=precision))
        checks = yaml.safe_load(text)["runtime"]["health_checks"]
        assert checks["startup_threshold_seconds"] == usual + more
        assert ("and compiling kernels" in text) == (more > 0)
    longest = card.hardware.model_copy(update={"startup_seconds": LONGEST_STARTUP})
    slow = card.model_copy(update={"hardware": longest})
    assert fit.choose(slow, "A100:2", "int4").startup_seconds == LONGEST_STARTUP

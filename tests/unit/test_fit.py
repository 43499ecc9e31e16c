"""Which choices fit, and what is said of those that do not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import cards, fit, gpus, precisions
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.fit import PlanError
from deploy.gpus import Gpu
from deploy.plan import Plan
from deploy.precisions import PRECISIONS, Precision
from tests.support.plans import GPUS, a_card, accepted


@pytest.mark.parametrize(
    ("model", "gpu", "precision", "context", "message"),
    [
        (
            "mixtral-8x7b",
            "A100:1",
            "bf16",
            None,
            r"^Mixtral 8x7B in bf16 needs 87 GiB for weights; 1×A100 has 80 GiB\. "
            r"Use 2×A100, or PRECISION=fp8$",  # with the whole context
        ),
        ("pixtral-12b", "T4", "bf16", None, r"bf16 needs compute capability 8\.0, and T4 has 7\.5"),
        (
            "mistral-7b",
            "V100",
            "fp8",
            None,
            r"for V100.*7\.0.*begin at 7\.5\. Use GPU=L4$",
        ),
        ("mixtral-8x7b", "V100", "fp16", None, r"no kernels for V100.*\. Use GPU=A10G$"),
        ("mixtral-8x7b", "T4", "bf16", None, r"T4 has 7\.5\. Use PRECISION=int4$"),
        (
            "mixtral-8x7b",
            "T4",
            "fp16",
            200000,
            r"a context of 32768 tokens, not 200000\. Use PRECISION=int4 CONTEXT=32768$",
        ),
        (
            "pixtral-12b",
            "T4:2",
            "fp16",
            1000,
            r"an image may need\. Use 4×T4 CONTEXT=4160, or PRECISION=fp8 CONTEXT=4160$",
        ),
        ("mistral-7b", "A100:3", "bf16", None, "3×A100 do not divide the 32 heads and 8 KV heads"),
        ("mistral-7b", "A10G:3", "bf16", None, "GPU='A10G:3': there are instances with 1, 2, 4, 8"),
        ("mistral-7b", "A100:0", "bf16", None, "GPU='A100:0': there are instances with"),
        ("mistral-7b", "A100:", "bf16", None, "GPU='A100:': there are instances with"),
        ("mistral-7b", "A1000", "bf16", None, "GPU='A1000' is not known; did you mean A100.*GB300"),
        ("mistral-7b", "A100", "int3", None, "PRECISION='int3' is not known; use one of bf16, fp1"),
        (
            "mistral-7b",
            "A100",
            "gptq",
            None,
            "mistral-7b.yaml names no GPTQ repo under quantized, and PRECISION=gptq does "
            r"not quantize; for weights that already are: WEIGHTS=.* QUANTIZED=gptq\. Use ",
        ),
        ("mistral-7b", "A100", "W4A16", None, "quantized so: WEIGHTS=.* QUANTIZED=w4a16$"),
        (
            "mistral-7b",
            "A100",
            "bf16",
            40000,
            "32768 tokens, not 40000. Use CONTEXT=32768$",
        ),
        ("mistral-7b", "A100", "bf16", 100, "100 tokens is too short: 256 is the least"),
        (
            "pixtral-12b",
            "A100",
            "bf16",
            1000,
            "too short: 4160 an image may need. Use CONTEXT=4160$",
        ),
        (
            "pixtral-12b",
            "A10G:2",
            "bf16",
            120000,
            r"Pixtral 12B 2409 in bf16 on 2×A10G fits a context of \d+ tokens, not 120000\. "
            r"Use CONTEXT=\d+, 4×A10G, or PRECISION=fp8",
        ),
        (
            "pixtral-12b",
            "A10G:1",
            "bf16",
            None,
            r"needs 24 GiB for weights, about 2\.\d GiB beside, and a KV cache; 1×A10G has 24 GiB, "
            r"of which vLLM gets 20 GiB\. Use 2×A10G \(context \d+ of 128000\), or PRECISION=fp8 ",
        ),
    ],
)
def test_an_impossible_choice_says_why_and_what_would_do(
    model: str, gpu: str, precision: str, context: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fit.choose(cards.load(model), gpu, precision, context)


@given(
    a_card,
    st.sampled_from([(gpu, count) for gpu in GPUS for count in (None, *gpu.counts)]),
    st.sampled_from(list(PRECISIONS.values())),
    st.one_of(st.none(), st.integers(1, 200_000)),
)
def test_what_is_advised_can_be_had(
    card: Card, asked: tuple[Gpu, int | None], precision: Precision, context: int | None
) -> None:
    if accepted(card, *asked, precision, context):
        return
    with pytest.raises(PlanError) as refused:
        fit.fit(card, *asked, precision, context)
    advice = str(refused.value).rsplit(". Use ", 1)[1]
    for choice in advice.replace(", or ", ", ").split(", "):
        choice, cut, left = choice.removesuffix(")").partition(" (context ")
        found = followed(choice, card, *asked, precision, context)
        whole = card.context.length
        assert left == (f"{found.context} of {whole}" if cut else "")
        assert bool(cut) == (found.asked_context is None and found.context < whole)


def followed(
    choice: str,
    card: Card,
    gpu: Gpu,
    count: int | None,
    precision: Precision,
    context: int | None,
) -> Plan:
    """The plan of what was asked with the advised `choice` in it; an error when there is none."""
    for word in choice.split(" "):
        match re.split("[=×]", word):
            case ["GPU", name]:
                gpu, count = gpus.parse(name)
            case ["PRECISION", name]:
                precision = precisions.parse(name)
            case ["CONTEXT", tokens]:
                context = int(tokens)
            case [number, name]:
                gpu, count = gpus.parse(f"{name}:{number}")
            case _:
                raise ValueError(f"{word!r} cannot be followed")
    return fit.fit(card, gpu, count, precision, context)


def test_a_gpu_that_a_card_names_and_that_is_not_there_is_said_of_the_card() -> None:
    card = cards.load("mistral-7b")
    hardware = card.hardware.model_copy(update={"accelerator": "L5"})
    message = r"mistral-7b.yaml: hardware.accelerator: 'L5' is not known; use one of T4"
    with pytest.raises(UsageError, match=message):
        fit.choose(card.model_copy(update={"hardware": hardware}))

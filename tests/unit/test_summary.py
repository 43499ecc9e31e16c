"""What is said of a config.yaml that was written."""

import pytest

from deploy import cards
from deploy.options import Options
from deploy.summary import PRICES, summary


@pytest.mark.parametrize(
    ("model", "options", "fewer"),
    [
        ("mistral-7b", Options(), ""),
        ("mistral-7b", Options(gpu="T4"), "GPU=T4:1 PRECISION=fp8 has 32768 tokens of context"),
        ("pixtral-12b", Options(gpu="L4"), "GPU=L4:1 PRECISION=fp8 has 27648 tokens of context"),
        ("mixtral-8x7b", Options(), "GPU=A100:1 PRECISION=fp8 has 32768 tokens of context"),
        ("mixtral-8x7b", Options(gpu="A10G", precision="fp8"), ""),
    ],
)
def test_fewer_gpus_in_fp8_are_named(model: str, options: Options, fewer: str) -> None:
    text = summary(cards.load(model), options)
    assert ("cheaper" in text) == bool(fewer)
    assert f"  cheaper      {fewer}" in text or not fewer
    assert PRICES in text

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


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"hf://acme/own@{'c' * 40}", "with the secret mine; mirrored by Baseten"),
        ("hf://acme/own", "with the secret mine; NOT PINNED: it may be another at the next push"),
        ("hf://acme/own@main", "with the secret mine; NOT PINNED: it may be another at the next"),
        ("hf://acme/own@v1.0", "with the secret mine; NOT PINNED"),
        ("s3://bucket/own", "with the secret mine; as it lies there when it is pushed"),
        ("https://host/own.safetensors", "as it lies there when it is pushed"),
    ],
)
def test_what_is_not_pinned_is_said(source: str, said: str) -> None:
    options = Options(weights=source, adapters=f"legal={source}", secret="mine")
    own, adapter = [
        line for line in summary(cards.load("mistral-7b"), options).splitlines() if source in line
    ]
    assert own.startswith(f"  weights      {source}, ")
    assert said in own
    assert adapter.startswith(f"  adapter      legal: {source}, ")
    assert ("NOT PINNED" in adapter) == ("NOT PINNED" in said)


def test_what_has_no_credentials_is_said() -> None:
    text = summary(cards.load("mistral-7b"), Options(weights="s3://bucket/own"))
    assert "s3://bucket/own, with NO CREDENTIALS (SECRET= names them)" in text

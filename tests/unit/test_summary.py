"""What is said of a config.yaml that was written."""

from pathlib import Path

import pytest

from deploy import cards
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options
from deploy.summary import PRICES, in_a_line, summary


@pytest.mark.parametrize(
    ("model", "options", "fewer"),
    [
        ("mistral-7b", Options(), ""),
        ("mistral-7b", Options(gpu="T4"), "GPU=T4:1 PRECISION=fp8 has 32768 tokens of context"),
        (
            "pixtral-12b",
            Options(gpu="L4"),
            "GPU=L4:1 PRECISION=fp8 has 27648 tokens of context, not ",
        ),
        ("mixtral-8x7b", Options(), "GPU=A100:1 PRECISION=fp8 has 32768 tokens of context, 109 r"),
        ("mixtral-8x7b", Options(gpu="A10G", precision="fp8"), ""),
        ("mistral-7b", Options(gpu="T4:2", context=8192), "GPU=T4:1 PRECISION=fp8 has 8192 tokens"),
    ],
)
def test_fewer_gpus_in_fp8_are_named(model: str, options: Options, fewer: str) -> None:
    text = summary(cards.load(model), options)
    assert ("fewer GPUs" in text) == bool(fewer)
    assert f"  fewer GPUs   {fewer}" in text or not fewer
    assert PRICES in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"hf://acme/own@{'c' * 40}", "with the secret mine; mirrored by Baseten"),
        (
            "hf://acme/own",
            "with the secret mine; NOT PINNED: another push may find other files; add @",
        ),
        (
            "hf://acme/own@main",
            "with the secret mine; NOT PINNED: another push may find other files; add @",
        ),
        ("hf://acme/own@v1.0", "with the secret mine; NOT PINNED"),
        (
            "s3://bucket/own",
            "with the secret mine; not pinned: Baseten copies what is there at the push",
        ),
        ("https://host/own.safetensors", "not pinned: Baseten copies what is there at the push"),
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(weights="s3://bucket/own", secret="mine"), True),
        (Options(weights="s3://bucket/own", title="Own"), False),
        (Options(), False),
    ],
)
def test_own_weights_without_a_title_are_said_to_become_the_base_model(
    options: Options, said: bool
) -> None:
    text = summary(cards.load("mistral-7b"), options)
    assert (
        "  title        the base model's, so that Baseten makes this a new version" in text
    ) == said
    assert ("tokenizer.model.v3, with the secret hf_access_key" in text) == (options != Options())


def test_a_model_without_tools_is_said_to_have_none() -> None:
    told = [
        card.name for card in cards.load_all() if "  tools        none" in summary(card, Options())
    ]
    assert told == ["mixtral-8x7b"]


def test_what_has_no_credentials_is_said() -> None:
    text = summary(cards.load("mistral-7b"), Options(weights="s3://bucket/own"))
    assert "s3://bucket/own, with NO CREDENTIALS (SECRET= names them)" in text


def test_what_runs_at_once_is_said_in_words() -> None:
    text = summary(cards.load("pixtral-12b"), Options())
    assert "256 at most run at once in a replica; `make autoscale` gives it 49, planned" in text
    assert "planned with 2048 tokens and an image each" in text
    assert "image" not in summary(cards.load("mistral-7b"), Options())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(), "fp16, which vLLM calls float16\n"),
        (
            Options(gpu="H100"),
            "fp16, which vLLM calls float16: the card's, for its A10G; PRECISION=bf16 is as "
            "published, and no larger\n",
        ),
        (Options(gpu="T4:2"), "fp16, which vLLM calls float16: the card's, for its A10G\n"),
        (Options(gpu="A10G"), "fp16, which vLLM calls float16\n"),
        (Options(gpu="H100", precision="fp16"), "fp16, which vLLM calls float16\n"),
        (Options(gpu="H100", precision="bf16"), "bf16, which vLLM calls bfloat16\n"),
        (Options(gpu="L4", precision="fp8"), "fp8 weights, float16 for the rest"),
        (Options(gpu="T4", precision="fp8"), "fp8 weights (weights only: this GPU computes in 16"),
        (
            Options(weights="s3://bucket/own", quantized="awq"),
            "awq weights (as the weights are), float16 for the rest",
        ),
    ],
)
def test_the_precision_is_said_in_words(options: Options, said: str) -> None:
    assert f"  precision    {said}" in summary(cards.load("mistral-7b"), options)


@pytest.mark.parametrize("name", [name for name in cards.names() if name != "mistral-7b"])
def test_a_card_in_bf16_is_so_on_a_larger_gpu_too(name: str) -> None:
    text = summary(cards.load(name), Options(gpu="H200"))
    assert "  precision    bf16, which vLLM calls bfloat16\n" in text


def test_a_gpu_that_baseten_does_not_list_is_said() -> None:
    card = cards.load("mistral-7b")
    assert "B300:1; not on Baseten's page" in summary(card, Options(gpu="B300"))
    assert "not on Baseten's page" not in summary(card, Options(gpu="B200"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--kv-cache-dtype fp8", "--kv-cache-dtype"),
        ("--kv_cache_dtype=fp8", "--kv-cache-dtype"),
        ("--speculative-config.method ngram --enforce-eager", "--speculative-config"),
        ("-sc ngram", "--speculative-config"),
        ("--enforce-eager", ""),
    ],
)
def test_a_flag_that_the_plan_does_not_count_is_said(flags: str, said: str) -> None:
    text = summary(cards.load("mistral-7b"), Options(vllm_args=flags))
    assert ("  not counted  " in text) == bool(said)
    assert f"  not counted  {said}: " in text or not said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            Options(),
            "Mistral 7B Instruct v0.3 on A10G:1, weights hf://mistralai/Mistral-7B-Instruct-v0.3@"
            "c170c708c41dac9275d15a8fff4eca08d52bab71, dtype float16, context 32768",
        ),
        (
            Options(
                gpu="L4",
                precision="fp8",
                weights="s3://bucket/own",
                title="Own",
                adapters="legal=hf://acme/legal,med=hf://acme/med",
            ),
            "Own on L4:1, weights s3://bucket/own, adapters legal med, dtype float16, quantization "
            "fp8_per_channel, context 32768",
        ),
        (
            Options(source="hub", precision="int4", adapters="legal=hf://acme/legal"),
            "Mistral 7B Instruct v0.3 on A10G:1, weights mistralai/Mistral-7B-Instruct-v0.3, "
            'adapters legal, dtype float16, quantization humming, as {"dtype": "int4", '
            '"group_size": 128}, context 32768',
        ),
    ],
)
def test_what_is_pushed_is_said_in_a_line(tmp_path: Path, options: Options, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(render(cards.load("mistral-7b"), options))
    assert in_a_line(path) == said
    path.write_text(path.read_text().replace("--max-model-len 32768", "--max-model-len 4096"))
    assert in_a_line(path).endswith("context 4096")


@pytest.mark.parametrize("text", ["", "[", "model_name: mine", "docker_server: {start_command: x}"])
def test_what_is_not_ours_is_pushed_and_said_to_be_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(UsageError, match=r"cannot be read .*; make config MODEL=… writes it"):
        in_a_line(path)
    path.write_text(text)
    assert in_a_line(path) == "config.yaml, which is not as `make config` writes it"


def test_variables_that_were_given_are_named() -> None:
    card = cards.load("mistral-7b")
    assert "  environment  A, LD_PRELOAD" in summary(card, Options(env="A=1 LD_PRELOAD=x"))
    assert "  environment  " not in summary(card, Options())

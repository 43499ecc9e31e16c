from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import cards, fit, memory
from deploy.config import planned, render
from deploy.errors import UsageError
from deploy.options import Options
from deploy.start_command import argument, start_command
from deploy.weights import applied

COMMIT = "c" * 40
OWN = f"hf://acme/support-7b@{COMMIT}"
MISTRAL = cards.load("mistral-7b")


def config(options: Options, model: str = "mistral-7b") -> Any:
    return yaml.safe_load(render(cards.load(model), options))


@pytest.mark.parametrize(
    "source",
    [
        OWN,
        "hf://acme/support-7b",
        "s3://bucket/a/b",
        "gs://bucket/a",
        "azure://account/container/a",
        "r2://account.bucket/a",
        "cw://bucket/a",
        "https://host/model.safetensors",
    ],
)
def test_own_weights_are_mounted_and_the_tokenizer_is_the_base_card_s(source: str) -> None:
    found = config(Options(weights=source))
    own, tokenizer = found["weights"]
    assert own["source"] == source
    assert own["mount_location"] == "/models/mistral-7b"
    assert tokenizer["source"].startswith("hf://mistralai/Mistral-7B-Instruct-v0.3@")
    assert tokenizer["allow_patterns"] == ["tokenizer.model.v3"]
    command = found["docker_server"]["start_command"]
    assert argument(command, "--tokenizer") == tokenizer["mount_location"]
    assert argument(command, "--config-format") == "auto"


@pytest.mark.parametrize(
    ("format", "config_format", "load", "file"),
    [
        ("hf", "hf", "safetensors", "model*.safetensors"),
        ("mistral",) * 2 + ("mistral", "params.json"),
    ],
)
def test_the_format_may_be_said(format: str, config_format: str, load: str, file: str) -> None:
    found = config(Options(weights=OWN, format=format))
    command = found["docker_server"]["start_command"]
    assert argument(command, "--config-format") == config_format
    assert argument(command, "--load-format") == load
    assert file in found["weights"][0]["allow_patterns"]


def test_own_weights_of_a_model_that_sees_are_in_mistral_s_format(tmp_path: Path) -> None:
    pixtral = cards.load("pixtral-12b")
    for format in (None, "mistral"):
        found = yaml.safe_load(render(pixtral, Options(weights=OWN, format=format)))
        assert found["weights"][0]["allow_patterns"][0] == "params.json"
        assert "model*.safetensors" not in found["weights"][0]["allow_patterns"]
        assert argument(found["docker_server"]["start_command"], "--config-format") == "mistral"
    with pytest.raises(UsageError, match="FORMAT=hf: of Pixtral 12B 2409 own weights") as refused:
        render(pixtral, Options(weights=OWN, format="hf"))
    assert len(str(refused.value)) < 300
    for name in ("pixtral-12b", "support-12b"):
        text = (
            (cards.MODELS / "pixtral-12b.yaml").read_text()
            if name == "pixtral-12b"
            else f"""
base: pixtral-12b
name: {name}
title: Support 12B
own_weights: {{source: {OWN}, format: hf}}
"""
        )
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UsageError, match="FORMAT=hf: of Support 12B own weights"):
        render(cards.load("support-12b", tmp_path), Options())


def test_each_source_has_its_own_credentials() -> None:
    def auth(options: Options) -> list[str | None]:
        entries = config(options)["weights"]
        return [entry.get("auth", {}).get("auth_secret_name") for entry in entries]

    s3 = "s3://bucket/a"
    assert auth(Options(weights=OWN, secret="mine")) == ["mine", "mine"]
    assert auth(Options(weights=s3)) == [None, "hf_access_key"]
    assert auth(Options(weights=s3, secret="aws")) == ["aws", "hf_access_key"]
    assert auth(Options(weights=s3, secret="s3:aws,hf:mine")) == ["aws", "mine"]
    assert auth(Options(adapters=f"a={s3}", secret="aws")) == ["hf_access_key", "aws"]


def test_a_quantized_checkpoint_is_served_as_it_is_and_its_bytes_are_planned() -> None:
    sixteen, four = (planned(MISTRAL, Options(weights=OWN, quantized=q)) for q in (None, "awq"))
    assert four.weights < 0.35 * sixteen.weights
    command = start_command(render(MISTRAL, Options(weights=OWN, quantized="awq")))
    assert argument(command, "--quantization") is None
    with pytest.raises(UsageError, match=r"PRECISION='fp8': the weights are awq already"):
        render(MISTRAL, Options(weights=OWN, quantized="awq", precision="fp8"))
    with pytest.raises(UsageError, match="QUANTIZED=awq of your own weights"):
        render(MISTRAL, Options(weights=OWN, precision="awq"))


def test_own_weights_are_looked_at_before_they_are_served() -> None:
    command = start_command(render(MISTRAL, Options(weights=OWN)))
    assert "check.py /models/mistral-7b --vocabulary 32768 &&" in " ".join(command.split())
    assert "check.py" not in start_command(render(MISTRAL, Options()))
    command = start_command(render(MISTRAL, Options("hub", weights=OWN)))
    looked = f"check.py acme/support-7b@{COMMIT} --vocabulary 32768"
    assert command.index("export HF_TOKEN") < command.index(looked)


def test_own_weights_from_the_hub() -> None:
    command = start_command(render(MISTRAL, Options("hub", weights=OWN, format="mistral")))
    assert f"/secrets/hf_access_key acme/support-7b {COMMIT} params.json" in command
    assert argument(command, "--revision") == COMMIT
    assert argument(command, "--tokenizer") == "mistralai/Mistral-7B-Instruct-v0.3"
    assert argument(command, "--tokenizer-revision") == MISTRAL.weights.revision
    with pytest.raises(UsageError, match="SOURCE=hub downloads from the Hugging Face hub alone"):
        render(MISTRAL, Options("hub", weights="s3://b/a"))


def test_adapters_are_mounted_served_and_planned() -> None:
    options = Options(adapters=f"legal=hf://acme/legal@{COMMIT},medical=s3://b/m", rank=16)
    found = config(options)
    assert [entry["mount_location"] for entry in found["weights"]] == [
        "/models/mistral-7b",
        "/adapters/legal",
        "/adapters/medical",
    ]
    command = found["docker_server"]["start_command"]
    assert "--lora-modules legal=/adapters/legal medical=/adapters/medical" in command
    assert argument(command, "--max-loras") == "2"
    assert argument(command, "--max-lora-rank") == "16"
    slot = memory.adapter_bytes(MISTRAL.architecture, 16, None)
    assert slot == 80 * 2**20  # docs of the figures: 16 x 81,920 x 32 layers x 2 bytes
    less = fit.choose(MISTRAL).kv_memory - planned(MISTRAL, options).kv_memory
    assert less == 2 * slot


def test_adapters_of_mixtral_are_of_its_attention() -> None:
    command = start_command(render(cards.load("mixtral-8x7b"), Options(adapters="a=s3://b/a")))
    assert "--lora-target-modules q_proj k_proj v_proj o_proj" in command
    assert (
        "check.py /models/mixtral-8x7b --rank 64 --modules q_proj,k_proj,v_proj,o_proj" in command
    )


def test_adapters_from_the_hub_are_fetched_at_their_commit() -> None:
    command = start_command(render(MISTRAL, Options("hub", adapters=f"a=hf://acme/a@{COMMIT}")))
    fetched = f"hf download acme/a --revision {COMMIT} --local-dir /tmp/adapters/a"
    assert fetched in command
    assert command.index("export HF_TOKEN") < command.index(fetched) < command.index("check.py")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "acme/support"}, "of the hub is written hf://acme/support@commit"),
        ({"weights": "./support"}, r"'./support', a folder of this .* MOUNT=/models/MODEL=FOLDER"),
        ({"weights": "../own/support"}, "a folder of this machine"),
        ({"weights": "/home/me/support"}, "a folder of this machine"),
        ({"weights": "~/support"}, "a folder of this machine"),
        ({"weights": "file:///support"}, "a folder of this machine"),
        ({"adapters": "legal=./legal"}, "a folder of this .* MOUNT=/adapters/NAME=FOLDER"),
        (
            {"weights": "https://huggingface.co/acme/support/tree/main"},
            "of the hub is written hf://acme/support@commit",
        ),
        ({"weights": "ftp://a/b"}, "which is not one of"),
        ({"weights": "hf://acme"}, "it is written hf://owner/name@commit"),
        ({"weights": "hf://a/b@"}, "it is written hf://"),
        ({"weights": "s3://bucket/a@b"}, "only hf:// has revisions"),
        ({"weights": "s3://"}, "it is written s3://bucket/folder"),
        ({"weights": "s3://a b/c"}, "it is written s3://"),
        ({"weights": OWN, "format": "gguf"}, "FORMAT='gguf' is not known"),
        ({"weights": OWN, "quantized": "q4"}, "QUANTIZED='q4' is not known"),
        ({"format": "hf"}, "FORMAT= describes WEIGHTS="),
        ({"quantized": "awq"}, "QUANTIZED= describes WEIGHTS="),
        ({"adapters": ""}, "ADAPTERS= is empty"),
        ({"adapters": "hf://acme/legal"}, "it is written name=source"),
        ({"adapters": "a=s3://b/a,a=s3://b/c"}, "has 'a' twice"),
        ({"adapters": "mistral-7b=s3://b/a"}, "which the model itself answers to"),
        ({"adapters": "a b=s3://b/a"}, "has the name 'a b'"),
        ({"adapters": "a/b=s3://b/a,a--b=s3://b/b"}, "would both be mounted at /adapters/a--b"),
        ({"adapters": "a=s3://b/a", "rank": 24}, "use RANK=32"),
        ({"adapters": "a=s3://b/a", "rank": 1024}, "RANK=1024: .* rank 512 at most; leave out"),
        ({"secret": "x3:aws,hf:a"}, "'x3' is not one of"),
        ({"rank": 8}, "RANK=8 is of ADAPTERS="),
        ({"title": " "}, "TITLE=' ' is not a name"),
        ({"title": "a: b"}, "TITLE='a: b' is not a name"),
        ({"title": "Pixtral 12B 2409"}, "TITLE='Pixtral 12B 2409' is the title of pixtral-12b"),
    ],
)
def test_what_cannot_be_mounted_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        render(MISTRAL, Options(**options))
    assert len(str(refused.value)) < 300


def test_the_names_of_own_weights() -> None:
    assert applied(MISTRAL, Options(weights=OWN)).names == [
        "mistral-7b",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "acme/support-7b",
    ]
    for title in ("Support", MISTRAL.title):
        assert applied(MISTRAL, Options(title=title)).title == title

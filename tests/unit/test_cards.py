from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import cards
from deploy.cards import MODELS, CardError
from deploy.config import render, write
from deploy.errors import UsageError
from deploy.options import Options
from deploy.summary import summary
from tests.support.cards import QUANTIZED


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with one card, mistral-7b, after `change`."""
    content = yaml.safe_load((MODELS / "mistral-7b.yaml").read_text())
    change(content)
    (folder / "mistral-7b.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("name", cards.names())
def test_every_card_is_valid(name: str) -> None:
    assert cards.load(name).name == name


def test_the_models_are_there() -> None:
    models = {"mistral-7b", "mistral-nemo-12b", "mixtral-8x22b", "mixtral-8x7b", "pixtral-12b"}
    assert models <= set(cards.names())


@pytest.mark.parametrize(
    ("model", "accelerator", "precision"),
    [
        ("mistral-7b", ("A10G", 1), "float16"),
        ("mixtral-8x7b", ("A100", 2), "bfloat16"),
        ("pixtral-12b", ("A100", 1), "bfloat16"),
    ],
)
def test_default_hardware_is_what_the_older_trusses_say(
    model: str, accelerator: tuple[str, int], precision: str
) -> None:
    hardware = cards.load(model).hardware
    assert (hardware.accelerator, hardware.count) == accelerator
    assert hardware.precision == precision


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mistral-7b", "mistral-7b"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("mixtral-8x7b", "mistral-7b"),
        ("mixtral-8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("pixtral-12b", "pixtral"),
        ("pixtral-12b", "mistralai/Pixtral-12B-2409"),
    ],
)
def test_models_answer_to_the_names_their_clients_use(model: str, name: str) -> None:
    assert name in cards.load(model).names
    assert cards.load(model).names[0] == model


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CardError, match=f"no model 'llama'.*{', '.join(cards.names())}"):
        cards.load("llama")


@pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
def test_a_model_by_another_of_its_names_is_told_its_card(card: cards.Card) -> None:
    for name in (card.weights.repo, card.title, card.name.upper(), f"{card.name}.yaml"):
        with pytest.raises(CardError, match=f"no model '{name}'; did you mean {card.name}\\?"):
            cards.load(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(colour="red"), "mistral-7b.yaml: colour: unknown key"),
        (lambda c: c["weights"].update(colour="red"), "mistral-7b.yaml: weights.colour: unknown"),
        (lambda c: c.pop("context"), "mistral-7b.yaml: context: missing key"),
        (lambda c: c["architecture"].pop("heads"), "architecture.heads: missing key"),
        (lambda c: c["architecture"].update(heads="32"), "architecture.heads: .*got '32'"),
        (lambda c: c["architecture"].update(heads=0), "architecture.heads: .*got 0"),
        (lambda c: c["weights"].update(revision="main"), "weights.revision: .*got 'main'"),
        (lambda c: c["weights"].update(mount_location="models"), "weights.mount_location: .*abs"),
        (lambda c: c["features"].update(images=4), "architecture.vision must be given"),
        (lambda c: c.update(images={}), "images.megabytes: missing key"),
        (lambda c: c["hardware"].update(count=5), "hardware.count 5 does not divide"),
        (lambda c: c.update(autoscaling={"min_replica": 2}), "autoscaling: .*2 must not be above"),
        (lambda c: c.update(autoscaling={"max_replica": 0}), "autoscaling.max_replica: .*got 0"),
        (lambda c: c.update(quantized=[QUANTIZED, QUANTIZED]), "names a precision twice: awq, awq"),
        (lambda c: c.update(quantized=[{**QUANTIZED, "bits": 3}]), "quantized.0.bits: .*got 3"),
        (lambda c: c.update(limits={"colour": 1}), "limits.colour.*: .*is not a limit"),
        (lambda c: c.update(limits={"vocabulary": 1}), "limits.vocabulary.*: .*is not a limit"),
        (lambda c: c.update(limits={"depth": -1}), "limits.depth: .*got -1"),
        (lambda c: c.update(name="other"), "name: is 'other', must be the file's, 'mistral-7b'"),
    ],
)
def test_a_faulty_card_is_refused_naming_file_and_key(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        cards.load("mistral-7b", changed(tmp_path, change))


def test_a_card_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mistral-7b.yaml").write_text("name: [")
    with pytest.raises(CardError, match=r"mistral-7b\.yaml: not valid YAML"):
        cards.load("mistral-7b", tmp_path)


def with_base(folder: Path, **more: object) -> Path:
    """A folder with mistral-7b and a card that is made from it."""
    (folder / "mistral-7b.yaml").write_text((MODELS / "mistral-7b.yaml").read_text())
    content = {
        "base": "mistral-7b",
        "name": "support-7b",
        "title": "Support 7B",
        "own_weights": {"source": f"hf://acme/support-7b@{'c' * 40}"},
        **more,
    }
    (folder / "support-7b.yaml").write_text(yaml.safe_dump(content))
    return folder


OIDC = {
    "auth_method": "AWS_OIDC",
    "aws_oidc_role_arn": "arn:aws:iam::123456789012:role/baseten",
    "aws_oidc_region": "us-west-2",
}


def test_a_card_may_say_how_baseten_gets_at_the_weights_and_adapters(tmp_path: Path) -> None:
    own = {"source": "s3://bucket/support", "auth": OIDC}
    adapters = {"sources": {"legal": "s3://bucket/legal"}, "auth": OIDC}
    card = cards.load("support-7b", with_base(tmp_path, own_weights=own, adapters=adapters))
    text = render(card, Options())
    write(text, tmp_path / "config.yaml")
    entries = yaml.safe_load(text)["weights"]
    by_hub = {"auth_method": "CUSTOM_SECRET", "auth_secret_name": "hf_access_key"}
    assert [entry["auth"] for entry in entries] == [OIDC, by_hub, OIDC]
    assert "NO CREDENTIALS" not in summary(card, Options())
    hub = {"own_weights": {"source": "hf://acme/support", "auth": by_hub}}
    card = cards.load("support-7b", with_base(tmp_path, **hub))
    with pytest.raises(UsageError, match="SOURCE=hub downloads with the token"):
        render(card, Options("hub"))


@pytest.mark.parametrize("title", ["'{}'", '"{}"  # quoted', ">-\n  {}", '"\\x4D{}"', "{} "])
def test_a_title_of_another_card_is_refused_however_it_is_written(
    tmp_path: Path, title: str
) -> None:
    folder = with_base(tmp_path, title="Mistral 7B Instruct v0.3")
    other = folder / "mistral-7b.yaml"
    written = title.format(
        "istral 7B Instruct v0.3" if "x4D" in title else "Mistral 7B Instruct v0.3"
    )
    other.write_text(
        other.read_text().replace("title: Mistral 7B Instruct v0.3", f"title: {written}")
    )
    with pytest.raises(CardError, match=r"is mistral-7b\.yaml's too"):
        cards.load("support-7b", folder)
    with pytest.raises(CardError, match=r"is support-7b\.yaml's too"):
        cards.load("mistral-7b", folder)


def test_a_card_with_a_base_says_only_what_differs(tmp_path: Path) -> None:
    more = {"adapters": {"rank": 16}, "serving": {"queue": 8}, "limits": {"tools": 3}}
    card = cards.load("support-7b", with_base(tmp_path, **more))
    base = cards.load("mistral-7b")
    assert card.names == ["support-7b", "acme/support-7b"]
    assert card.architecture == base.architecture
    assert card.tokenizer_file == base.tokenizer_file
    assert (card.adapters.rank, card.serving.queue) == (16, 8)
    assert card.serving.drain_seconds == base.serving.drain_seconds


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"colour": "red"}, "support-7b.yaml: colour: unknown key"),
        ({"own_weights": {"sourc": "x"}}, r"support-7b.yaml: own_weights.source: missing key"),
        ({"own_weights": {"source": "acme/x"}}, "own_weights.source: .*is written hf://acme/x@"),
        ({"base": "none"}, "base: 'none' is not a card"),
        ({"title": "Mistral 7B Instruct v0.3"}, "is mistral-7b.yaml's too"),
        ({"vllm_args": "--port 1"}, "vllm_args: .*--port cannot be given"),
        ({"environment": {"HF_TOKEN": "x"}}, "environment: .*looks like a secret"),
        ({"adapters": {"rank": 24}}, "adapters.rank: .*must be one of"),
        ({"adapters": {"sources": {"support-7b": "s3://b/a"}}}, "one that the model answers to"),
        ({"adapters": {"sources": {"a/b": "s3://b/a", "a--b": "s3://b/b"}}}, "both be mounted at"),
        ({"adapters": {"auth": {"auth_method": "GCP_OIDC"}}}, "adapters.auth: .*gcp_oidc_service_"),
        ({"own_weights": {"source": "s3://b/a", "auth": {}}}, "own_weights.auth: .*auth_method"),
        (
            {"own_weights": {"source": "s3://b/a", "auth": {**OIDC, "aws_oidc_region": ""}}},
            "own_weights.auth: .*aws_oidc_region must be provided",
        ),
        (
            {"own_weights": {"source": "s3://b/a", "auth": {**OIDC, "aws_region": "x"}}},
            "own_weights.auth: .*aws_region",
        ),
        ({"title": "two\nlines"}, "title: "),
    ],
)
def test_a_faulty_card_with_a_base_is_refused(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        cards.load("support-7b", with_base(tmp_path, **more))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["params.json", "tokenizer.model"], "features.tools is true, and .*version 1"),
        (["params.json"], "must name one tokenizer .* and names none"),
        (["tekken.json", "tokenizer.model.v3"], "names tekken.json, tokenizer.model.v3"),
    ],
)
def test_a_tokenizer_that_contradicts_the_card_is_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    with pytest.raises(CardError, match=message):
        cards.load("mistral-7b", changed(tmp_path, lambda c: c["weights"].update(files=files)))


def test_a_fault_of_several_keys_does_not_quote_the_card(tmp_path: Path) -> None:
    def bare(content: dict[str, Any]) -> None:
        content["weights"]["files"] = ["params.json", "consolidated.safetensors", "tokenizer.model"]

    with pytest.raises(CardError) as refused:
        cards.load("mistral-7b", changed(tmp_path, bare))
    assert str(refused.value).startswith("mistral-7b.yaml: features.tools is true, and weights.f")
    assert len(str(refused.value)) < 300

"""Which plan a deployment is compared with."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from deploy import cards
from deploy.config import render
from deploy.options import Options
from scripts.smoke import deployed

MISTRAL = cards.load("mistral-7b")
OWN = Options(
    gpu="A10G:1",
    weights="hf://acme/own",
    adapters="legal=hf://acme/legal",
    title="Own",
    vllm_args="--enforce-eager",
    env="A=1",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(render(MISTRAL, OWN))
    return tmp_path / "config.yaml"


def test_config_yaml_is_what_was_deployed_hand_edits_included(config: Path) -> None:
    config.write_text(config.read_text().replace("--shutdown-timeout 15", "--shutdown-timeout 7"))
    assert deployed("mistral-7b", Options(), config) == (config.read_text(), "config.yaml", OWN)


@pytest.mark.parametrize("given", [{"gpu": "L4"}, {"precision": "fp8"}, {"context": 8192}])
def test_other_hardware_leaves_the_other_choices_of_config_yaml(
    config: Path, given: dict[str, Any]
) -> None:
    hardware = Options(**given)
    expected = dataclasses.replace(OWN, gpu=None)
    expected = dataclasses.replace(expected, **given)
    found = render(MISTRAL, expected), "config.yaml on the hardware given", expected
    assert deployed("mistral-7b", hardware, config) == found
    assert "--lora-modules legal=" in found[0]


@pytest.mark.parametrize(
    "text", [None, "model_name: mine", "# Written by `make config MODEL=gone`"]
)
def test_without_its_config_yaml_a_model_is_compared_with_its_card(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    found = render(MISTRAL, Options()), "the card's hardware", Options()
    assert deployed("mistral-7b", Options(), path) == found
    path.write_text(render(cards.load("pixtral-12b"), Options(gpu="H100")))
    assert deployed("mistral-7b", Options(), path) == found
    assert deployed("mistral-7b", Options(gpu="L4"), path) == (
        render(MISTRAL, Options(gpu="L4")),
        "what was given",
        Options(gpu="L4"),
    )
    assert deployed("someone-elses", Options(), path) is None

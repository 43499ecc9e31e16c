"""Every card × SOURCE renders to what Truss loads and builds, and vLLM's own parser accepts."""

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import cards, render, serve
from scripts.cards import ROOT, Card
from scripts.render import Choices

RENDERED = [
    pytest.param(card, Choices(source), id=f"{card.name}-{source}")
    for card, source in itertools.product(cards.load_all(), render.SOURCES)
]
every_config = pytest.mark.parametrize(("card", "choices"), RENDERED)


@pytest.fixture(scope="module")
def parser() -> Any:
    """vLLM's own parser of `vllm serve`."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def flags(arguments: list[str]) -> list[str]:
    return [word for word in arguments if word.startswith("--")]


def test_the_committed_config_is_what_the_default_renders_to() -> None:
    expected = render.render(cards.load(cards.DEFAULT_MODEL), Choices())
    assert (ROOT / "config.yaml").read_text() == expected, "run: make config MODEL=mistral-7b"


@every_config
def test_truss_builds_it_with_its_own_command(card: Card, choices: Choices, tmp_path: Path) -> None:
    truss, context = tmp_path / "truss", tmp_path / "context"
    truss.mkdir()
    serve.stage(render.render(card, choices), truss)
    build = subprocess.run(
        [ROOT / ".venv" / "bin" / "truss", "image", "build-context", context, truss],
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr
    supervisord = (context / "supervisord.conf").read_text()
    for flag in flags(render.serve_arguments(render.render(card, choices))):
        assert flag in supervisord
    assert (context / "packages" / "predict" / "middleware.py").is_file()
    dockerfile = (context / "Dockerfile").read_text()
    assert f"FROM vllm/vllm-openai:v{render.vllm_version()} " in dockerfile


@every_config
def test_vllm_accepts_the_start_command_flag_by_flag(
    card: Card, choices: Choices, parser: Any
) -> None:
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    arguments = render.serve_arguments(render.render(card, choices))
    known = set(parser._option_string_actions)
    unknown = [flag for flag in flags(arguments) if flag.split(".")[0] not in known]
    assert unknown == []
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    assert parsed.served_model_name == card.names
    assert parsed.max_model_len == card.context.length
    assert parsed.tokenizer_mode == "mistral"
    assert parsed.enable_auto_tool_choice == card.features.tools
    assert parsed.tool_call_parser == ("mistral" if card.features.tools else None)
    images = {"image": card.features.images} if card.features.images else {}
    assert parsed.limit_mm_per_prompt == images
    expected = card.weights.mount_location if choices.source == "bdn" else card.weights.repo
    assert parsed.model_tag == expected


def test_an_unknown_flag_would_be_noticed(parser: Any) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["/models/m", "--no-such-flag", "1"])


@every_config
def test_nothing_in_the_start_command_trips_supervisord(card: Card, choices: Choices) -> None:
    command = render.start_command(render.render(card, choices))
    assert not [trap for trap in ("%", " ;", " #") if trap in command]


@every_config
def test_the_parts_a_deployment_needs(card: Card, choices: Choices) -> None:
    config = yaml.safe_load(render.render(card, choices))
    server = config["docker_server"]
    assert config["base_image"]["image"] == f"vllm/vllm-openai:v{render.vllm_version()}"
    token = r'HF_TOKEN="\$\(.*\)" && export HF_TOKEN && ' if choices.source == "hub" else ""
    assert re.match(f"sh -c '{token}exec vllm serve ", server["start_command"])
    assert server["server_port"] == 8000
    assert server["predict_endpoint"] == "/v1/chat/completions"
    assert "openai-compatible" in config["model_metadata"]["tags"]
    assert config["model_metadata"]["example_model_input"] == card.example_input
    health = config["runtime"]["health_checks"]
    assert health["startup_threshold_seconds"] == card.hardware.startup_seconds
    if choices.source == "bdn":
        (weights,) = config["weights"]
        assert weights["source"] == f"hf://{card.weights.repo}@{card.weights.revision}"
        assert weights["allow_patterns"] == card.weights.files
        assert weights["auth"]["auth_secret_name"] == "hf_access_key"
        assert "secrets" not in config
    else:
        assert "weights" not in config
        assert config["secrets"] == {"hf_access_key": None}
        weights = card.weights
        asked = f"/secrets/hf_access_key {weights.repo} {weights.revision} {weights.files[0]}"
        assert f"$(python3 -m predict.hub_token {asked})" in server["start_command"]


def test_the_secret_may_have_another_name() -> None:
    card = cards.load("pixtral-12b")
    for source in render.SOURCES:
        text = render.render(card, Choices(source, secret="my-token"))
        assert "my-token" in text
        assert "hf_access_key" not in text

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import cards
from deploy.config import (
    RenderError,
    one_file,
    render,
    write,
)
from deploy.errors import UsageError
from deploy.options import SOURCES, Options, Source
from deploy.start_command import StartCommandError, check_start_command, start_command
from deploy.weights import applied
from scripts.config import main


def test_rendering_twice_gives_the_same_bytes() -> None:
    card = cards.load("mixtral-8x7b")
    assert render(card, Options()) == render(card, Options())


@pytest.mark.parametrize("source", SOURCES)
def test_one_flag_a_line(source: Source) -> None:
    text = render(cards.load("mistral-7b"), Options(source))
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("--")]
    assert all(line.count("--") == 1 for line in lines)
    assert len(lines) == text.count(" --")


def test_a_model_without_images_has_no_image_hosts() -> None:
    with pytest.raises(UsageError, match=r"Mistral 7B Instruct v0\.3 takes no images"):
        render(cards.load("mistral-7b"), Options(image_hosts="none"))


@pytest.mark.parametrize("command", ["vllm serve %d", "vllm serve ; ls", "vllm serve # fast"])
def test_what_supervisord_would_misread_is_refused(command: str) -> None:
    with pytest.raises(StartCommandError, match="supervisord would misread"):
        check_start_command(command)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "none"],
        ["--source", "ftp"],
        ["--secret", "not a name"],
        ["--gpu", "T5"],
        ["--gpu", "A10G:3"],
        ["--gpu", "V100"],
        ["--precision", "3-bit"],
        ["--precision", "awq"],
        ["--context", "long"],
        ["--context", "40000"],
        ["--context", "0"],
        ["--image-hosts", "*"],
    ],
)
def test_an_impossible_choice_leaves_config_yaml_as_it_was(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("as it was")
    assert main(["--output", str(config), *arguments]) == 2
    assert config.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [config]
    assert arguments[1].lower() in capsys.readouterr().err.lower()


def test_a_file_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("as it was")
    for output in (tmp_path / "none" / "x.yaml", tmp_path / "file" / "x.yaml", tmp_path):
        assert main(["--output", str(output)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"make config: {output} cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "words",
    [
        {"title": word, "secret": word, "weights": f"s3://{word}", "env": f"{name}={word}"}
        for word, name in [("null", "null"), ("123", "NO"), ("1-1", "y"), ("2024-01-01", "ON")]
    ]
    + [{"weights": "s3://bucket/a:", "adapters": "1=s3://b/{a}:"}],
)
@pytest.mark.parametrize("source", SOURCES)
def test_words_that_yaml_reads_as_something_else_stay_words(
    tmp_path: Path, source: Source, words: dict[str, Any]
) -> None:
    if source == "hub":
        words = {name: word for name, word in words.items() if name in ("title", "secret", "env")}
    options, card = Options(source, **words), cards.load("mistral-7b")
    text = render(card, options)
    write(text, tmp_path / "config.yaml")
    content = yaml.safe_load(text)
    assert content["model_name"] == applied(card, options).title
    assert options.variables.items() <= content["environment_variables"].items()
    if source == "hub":
        assert content["secrets"] == {options.secret: None}
    else:
        assert content["weights"][0]["source"] == words["weights"]


@pytest.mark.parametrize("text", ["model_name: 1", "model_name: [", "weights: [{source: x}]"])
def test_what_truss_refuses_is_said_in_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("as it was")
    with pytest.raises(
        RenderError, match=r"Truss refuses the config\.yaml this gives: "
    ) as refused:
        write(text, path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert [file.read_text() for file in tmp_path.iterdir()] == ["as it was"]


def test_what_was_chosen_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    assert main(["--output", str(config), "--model", "mixtral-8x7b"]) == 0
    out = capsys.readouterr().out
    assert "A100:2" in out
    assert "bfloat16" in out
    assert "hf_access_key" in out
    assert config.read_text() == render(cards.load("mixtral-8x7b"), Options())


def test_the_hub_token_is_read_from_its_file_and_on_no_command_line() -> None:
    command = start_command(render(cards.load("pixtral-12b"), Options("hub")))
    before, serve = command.split("exec vllm serve")
    assert '"$(python3 -m predict.hub_token /secrets/hf_access_key mistralai/Pixtral' in before
    assert "HF_TOKEN" not in serve
    assert "hub_token" not in serve


def test_the_hub_is_asked_for_a_file_that_is_named_in_full() -> None:
    files = ["model-*.safetensors", "config.json"]
    assert one_file("a-card", files) == "config.json"
    with pytest.raises(RenderError, match=r"a-card.yaml: weights.files: .*name one in full"):
        one_file("a-card", files[:1])

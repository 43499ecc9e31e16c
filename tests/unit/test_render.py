from pathlib import Path

import pytest

from scripts import cards, render
from scripts.render import Choices, RenderError


def test_rendering_twice_gives_the_same_bytes() -> None:
    card = cards.load("mixtral-8x7b")
    assert render.render(card, Choices()) == render.render(card, Choices())


@pytest.mark.parametrize("source", render.SOURCES)
def test_one_flag_a_line(source: render.Source) -> None:
    text = render.render(cards.load("mistral-7b"), Choices(source))
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("--")]
    assert all(line.count("--") == 1 for line in lines)
    assert len(lines) == text.count(" --")


@pytest.mark.parametrize("secret", ["", "a b", "$(id)", "x'; rm", "hf/key", "-x"])
def test_a_secret_name_that_is_none_is_refused(secret: str) -> None:
    with pytest.raises(RenderError, match="not the name of a Baseten secret"):
        Choices(secret=secret)


def test_a_token_in_place_of_the_secret_name_is_refused_and_not_repeated() -> None:
    token = "hf_" + "x" * 34
    with pytest.raises(RenderError, match="looks like a Hugging Face token") as refused:
        Choices(secret=token)
    assert token not in str(refused.value)


@pytest.mark.parametrize("command", ["vllm serve %d", "vllm serve ; ls", "vllm serve # fast"])
def test_what_supervisord_would_misread_is_refused(command: str) -> None:
    with pytest.raises(RenderError, match="supervisord would misread"):
        render.check_start_command(command)


@pytest.mark.parametrize(
    "arguments", [["--model", "none"], ["--source", "ftp"], ["--secret", "not a name"]]
)
def test_an_impossible_choice_leaves_config_yaml_as_it_was(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("as it was")
    assert render.main(["--output", str(config), *arguments]) == 2
    assert config.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [config]
    assert arguments[1] in capsys.readouterr().err


def test_what_was_chosen_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    assert render.main(["--output", str(config), "--model", "mixtral-8x7b"]) == 0
    out = capsys.readouterr().out
    assert "A100:2" in out
    assert "bfloat16" in out
    assert "hf_access_key" in out
    assert config.read_text() == render.render(cards.load("mixtral-8x7b"), Choices())


def test_the_hub_token_is_read_from_its_file_and_on_no_command_line() -> None:
    command = render.start_command(render.render(cards.load("pixtral-12b"), Choices("hub")))
    before, serve = command.split("exec vllm serve")
    assert '"$(python3 -m predict.hub_token /secrets/hf_access_key mistralai/Pixtral' in before
    assert "HF_TOKEN" not in serve
    assert "hub_token" not in serve


def test_the_hub_is_asked_for_a_file_that_is_named_in_full() -> None:
    card = cards.load("mixtral-8x7b")
    files = ["model-*.safetensors", "config.json"]
    weights = card.weights.model_copy(update={"files": files})
    assert render.one_file(card.model_copy(update={"weights": weights})) == "config.json"
    weights = card.weights.model_copy(update={"files": files[:1]})
    with pytest.raises(RenderError, match=r"mixtral-8x7b.yaml: weights.files: .*name one in full"):
        render.one_file(card.model_copy(update={"weights": weights}))

from pathlib import Path
from types import ModuleType

import pytest

from deploy import cards, edits
from deploy.config import render
from deploy.edits import EditedError, check_overwrite
from deploy.options import Options
from scripts import deploy, push
from scripts.config import main

CHOICES = Options(
    gpu="L4:1",
    precision="fp8",
    context=8192,
    image_hosts="a.example",
    vllm_args="""--kv-cache-dtype fp8 --speculative-config '{"method": "it'"'"'s %"}'""",
    env="A='two words' PREDICT_LIMIT_TOOLS=7",
)


@pytest.fixture
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a variable nor in ~/.trussrc."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BASETEN_API_KEY", "USER_TRUSSRC_PATH", "BASETEN_TRUSS_AUTH_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_the_header_names_every_choice() -> None:
    text = render(cards.load("pixtral-12b"), CHOICES)
    assert edits.chosen_by(text) == ("pixtral-12b", CHOICES)
    assert edits.lost(text) == []


def test_a_line_changed_by_hand_is_named() -> None:
    text = render(cards.load("mistral-7b"), Options())
    changed = text.replace("--shutdown-timeout 15", "--shutdown-timeout 7")
    assert edits.lost(changed) == ["-    --shutdown-timeout 7", "+    --shutdown-timeout 15"]
    assert edits.lost("model_name: mine\n") == [
        "- all of it: it does not say which `make config` wrote it"
    ]
    gone = text.replace("MODEL=mistral-7b", "MODEL=gone")
    assert "there is no model 'gone'" in edits.lost(gone)[0]


def test_make_config_never_overwrites_what_was_changed_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    arguments = ["--output", str(config), "--model", "mistral-7b"]
    assert main([*arguments, "--vllm-args=--enforce-eager"]) == 0
    assert main(arguments) == 0  # as it was written, so nothing is lost
    edited = config.read_text() + '  PREDICT_LIMIT_TOOLS: "7"\n'
    config.write_text(edited)
    assert main([*arguments, "--gpu", "L4"]) == 2
    assert config.read_text() == edited
    told = capsys.readouterr().err
    assert '-  PREDICT_LIMIT_TOOLS: "7"' in told
    assert "is not what its header renders to: it, the card or templates/ was changed" in told
    assert main([*arguments, "--gpu", "L4", "--force"]) == 0
    assert "L4:1" in config.read_text()


def test_a_file_that_is_not_ours_is_overwritten_with_force_alone(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    check_overwrite(config, force=False)
    config.write_bytes(b"\xff")
    with pytest.raises(EditedError, match="not UTF-8"):
        check_overwrite(config, force=False)
    check_overwrite(config, force=True)


def test_the_file_that_was_written_is_named_as_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"OUTPUT={tmp_path / 'new.yaml'}"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'new.yaml'}: Mistral 7B")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["WEIGHTS=hf://acme/own", "TITLE=My own", "GPU=L4"], ["GPU=L4"],
         "WEIGHTS=hf://acme/own 'TITLE=My own': config.yaml had it; give it again to keep it"),
        (["WEIGHTS=hf://acme/own", "GPU=L4"], ["WEIGHTS=hf://acme/other"], "GPU=L4:1: "),
        (["MODEL=pixtral-12b"], ["CONTEXT=8192"], "MODEL=pixtral-12b: "),
        (["MODEL=pixtral-12b", "IMAGE_HOSTS=none"], ["MODEL=pixtral-12b"], "IMAGE_HOSTS=none: "),
        (["WEIGHTS=hf://acme/own"], ["MODEL=pixtral-12b"], ""),  # another model, which is named
        (["GPU=L4"], ["GPU=H100"], ""),
        (["GPU=L4"], ["GPU=L4", "CONTEXT=8192"], ""),
    ],
)  # fmt: skip
def test_choices_that_are_left_out_are_said(
    before: list[str],
    now: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = f"OUTPUT={tmp_path / 'config.yaml'}"
    assert main([*before, output]) == 0
    assert "left out" not in capsys.readouterr().out
    assert main([*now, output]) == 0
    found = capsys.readouterr().out.partition("  left out     ")[2]
    assert found.startswith(said)
    assert bool(found) == bool(said)


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("command", [push, deploy], ids=["push", "deploy"])
def test_another_model_is_not_pushed_by_leaving_it_out(
    command: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "config.yaml"
    monkeypatch.setattr(command, "CONFIG", config)
    for words, lost in ((["MODEL=pixtral-12b"], "MODEL="), (["WEIGHTS=hf://acme/own"], "WEIGHTS=")):
        assert main([*words, "FORCE=1", f"OUTPUT={config}"]) == 0
        written = config.read_text()
        assert command.main(["GPU=L4:2"]) == 2
        error = capsys.readouterr().err
        assert lost in error
        assert "or push mistral-7b by MODEL=mistral-7b" in error
        assert config.read_text() == written
        assert command.main(["MODEL=mistral-7b", "GPU=L4:2"]) == 1  # for want of a key


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize("command", [push, deploy], ids=["push", "deploy"])
def test_without_a_key_nothing_is_written(
    command: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "CONFIG", tmp_path / "config.yaml")
    assert command.main(["MODEL=mistral-7b"]) == 1
    assert "BASETEN_API_KEY is not set" in capsys.readouterr().err
    assert list(tmp_path.glob("*.yaml*")) == []
    assert command.main(["MODEL=mistral-7b", "GPU=V100"]) == 2  # what cannot be is said first

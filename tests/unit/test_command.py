import argparse
import os
import re
import runpy
import sys

import pytest

from deploy import cards
from deploy.errors import CommandError, UsageError
from deploy.paths import ROOT
from scripts import command, setup
from scripts.options import COMMANDS, MAY_BE_EMPTY

ODD = ["a b", "'", '"', "$(id)", "`id`", "a=b", "--model", "-x", "a\nb", "é", "\\", "*", "#", "%"]


def error_of(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        command.parse(name, words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"make {name}: ")
    assert len(line) < 330
    return line


@pytest.mark.parametrize("value", ODD)
def test_a_value_arrives_as_it_was_given(value: str) -> None:
    assert command.parse("predict", [f"DATA={value}"]).data == value
    assert command.parse("predict", ["--data", value] if value[0] != "-" else [f"--data={value}"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_misspelt_name_is_refused_with_the_nearest(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {action.option_strings[0] for action in command.parser_of(name)._actions}
    for option in options - {"-h"}:
        known = command.variable(option)
        taken = command.actions(command.parser_of(name))
        for wrong in {known + "S", known[:-1] + "_", known.lower()} - set(taken):
            line = error_of(name, [f"{wrong}=1"], capsys)
            assert f"{wrong}= is not known" in line
            assert "did you mean" in line or len(known) < 4
    assert "is not known" in error_of(name, ["QWXYZ=1"], capsys)


def test_all_that_is_not_known_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of("push", ["MODLE=pixtral-12b", "GPUS=L4"], capsys)
    assert "MODLE= is not known; did you mean MODEL=?" in line
    assert "GPUS= is not known; did you mean GPU=?" in line


def test_a_name_of_another_command_is_said_to_be_its(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of("smoke", ["QUICK=1"], capsys)
    assert "QUICK= is for make bench; make smoke takes MODEL_ID=, ENVIRONMENT=" in line


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_value_is_refused_unless_it_means_something(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for known, action in command.actions(command.parser_of(name)).items():
        if action.option_strings[0] not in MAY_BE_EMPTY:
            assert f"{known}= is empty" in error_of(name, [f"{known}="], capsys)


def test_image_hosts_may_be_empty() -> None:
    assert command.parse("config", ["IMAGE_HOSTS="]).image_hosts == ""


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), ("0", False), ("no", False)]
)
def test_a_yes_or_no(value: str, expected: bool) -> None:
    assert command.parse("plan", [f"JSON={value}"]).json is expected


def test_what_is_neither_yes_nor_no_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "JSON='maybe' is neither yes nor no" in error_of("plan", ["JSON=maybe"], capsys)


def test_what_is_missing_is_said_as_make_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of("autoscale", [], capsys)
    assert line == "make autoscale: MODEL_ID= is missing: the id Baseten gave the model"


def test_what_the_environment_has_is_said_not_to_be_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_ID", "abc")
    assert error_of("autoscale", [], capsys).endswith("is not taken: MODEL_ID=$MODEL_ID")
    monkeypatch.setenv("MODEL", "pixtral-12b")
    assert command.ignored("config", ["GPU=L4"]) == ["MODEL"]
    assert command.ignored("config", ["MODEL=mistral-7b"]) == []
    assert command.ignored("smoke", []) == []


@pytest.mark.parametrize("version", [(3, 6, 9), (3, 8, 20)])
def test_a_python_that_is_too_old_is_told_so(
    version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=rf"this is Python 3\.{version[1]}, and 3.9 is the oldest"):
        runpy.run_path(str(ROOT / "scripts" / "__init__.py"))


def test_a_value_that_cannot_be_read_names_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of("autoscale", ["MODEL_ID=a", "MIN=x"], capsys)
    assert "MIN=: invalid int value: 'x'" in line


def test_options_may_follow_names_and_have_values_like_names() -> None:
    found = command.parse("serve", ["MODEL=pixtral-12b", "--variable", "A=1"])
    assert (found.model, found.variable) == ("pixtral-12b", ["A=1"])


def test_options_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "add LAYER=container" in error_of("test", ["LAYER=unit", "MODEL=pixtral-12b"], capsys)
    assert command.parse("test", ["LAYER=container", "MODEL=pixtral-12b"]).model == "pixtral-12b"


def test_an_option_is_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --mod=x" in error_of("config", ["--mod=x"], capsys)


@pytest.mark.parametrize(
    ("error", "code"),
    [(UsageError("why"), 2), (CommandError("why"), 1), (KeyboardInterrupt(), 130)],
)
def test_an_error_is_an_exit_code_and_a_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @command.command("plan")
    def main(options: argparse.Namespace) -> None:
        raise error

    assert main([]) == code
    said = "interrupted" if code == 130 else "why"
    assert capsys.readouterr().err == f"make plan: {said}\n"


def test_another_error_is_not_hidden() -> None:
    @command.command("plan")
    def main(options: argparse.Namespace) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main([])


def test_help_has_a_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if f"make {name} " in line]
        assert COMMANDS[name].description in line
    assert "make help push" in "".join(lines)
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_names_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["help", name]) == 0
    text = capsys.readouterr().out
    assert COMMANDS[name].description in text
    for action in command.actions(command.parser_of(name)).values():
        assert f"{command.variable(action.option_strings[0])}=" in text
        assert " ".join((action.help or "").split()) in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())


def test_help_is_for_commands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["help", "GPU=L4"]) == 2
    assert "'GPU=L4' is not a command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smoke", "BASE_URL=http://127.0.0.1:8080"], "make smoke: loading"),
        (["autoscale", "MODEL_ID=a"], "make autoscale: looking at the plan"),
        (["plan"], ""),
    ],
)
def test_what_takes_seconds_to_import_says_at_once_what_it_does(
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "ready", lambda environment: None)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "execve", lambda *program: None)
    for name in command.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    command.main(words)
    out, err = capsys.readouterr()
    assert err == ""  # where an error has the first line
    assert out.startswith(said)
    assert len(out.splitlines()) == bool(said)


def test_a_command_that_is_not_one_is_refused_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["psuh"]) == 2
    assert "did you mean make push?" in capsys.readouterr().err
    assert command.main(["help", "psuh"]) == 2
    refused = "make help: 'psuh' is not a command of this project; did you mean make help push? "
    assert capsys.readouterr().err.startswith(refused)


def test_every_command_is_a_file_of_scripts_and_every_file_a_command() -> None:
    files = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert files - {"__init__", "command", "options"} == set(COMMANDS)


def test_the_defaults_that_help_names_are_so() -> None:
    assert f"default: {cards.DEFAULT_MODEL}" in " ".join(command.help_of("config").split())


def test_the_front_door_needs_nothing_installed() -> None:
    """What runs before set-up imports the standard library and files that do so alone."""
    for name in ("scripts/command", "scripts/options", "scripts/setup", "deploy/errors",
                 "deploy/paths", "local/machine"):  # fmt: skip
        text = (ROOT / f"{name}.py").read_text()
        found = re.findall(r"^ *(?:from|import) ([\w.]+)", text, re.MULTILINE)
        ours = {"deploy.errors", "deploy.paths", "local.machine", "scripts.options", "scripts"}
        import sys

        assert {word for word in found if word.split(".")[0] not in sys.stdlib_module_names} <= ours

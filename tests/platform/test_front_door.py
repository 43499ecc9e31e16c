"""make, as a user's shell calls it: what arrives at the commands, and what is refused untouched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.paths import ROOT
from scripts.options import COMMANDS

ODD = {
    "spaces": "a  b  ",  # make itself drops those before
    "quotes": """it's "so" `id`""",
    "a command": "$(touch made) $HOME $$ ${x}",
    "nothing": "",
    "JSON in lines": '{"messages":\n [{"role": "user", "content": "Hi"}]}',
    "shell's own": "a;b&c|d>e<f*?[x]~#!\\ \\n",
    "make's own": "%.o: $@ $< :=+= # x",
    "make's functions": "$(shell touch made) $(error stop)",
    "equals": "A=1 B=2",
    "another script": "où, 日本",
}


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """In the place of Python: a program that prints the words it was called with."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    return program


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("kind", ODD)
def test_a_value_is_handed_over_as_it_is(kind: str, python: Path) -> None:
    done = make("predict", f"DATA={ODD[kind]}", f"PYTHON={python}")
    assert json.loads(done.stdout) == ["-m", "scripts.command", "predict", f"DATA={ODD[kind]}"]
    assert not (ROOT / "made").exists()


def test_every_variable_of_the_command_line_is_handed_over(python: Path) -> None:
    given = ["MODEL=a", "MODLE=b", "model=c", "ENVIRONMENT=d", "X_1=e", "SHELLS=f"]
    done = make("push", *given, f"PYTHON={python}")
    words = json.loads(done.stdout)
    assert words[:3] == ["-m", "scripts.command", "push"]
    assert sorted(words[3:]) == sorted(given)


@pytest.mark.parametrize("options", [[], ["-e"]])
def test_nothing_of_the_environment_is_handed_over(options: list[str], python: Path) -> None:
    shell = {"MODEL": "x", "GPU": "V100", "ENVIRONMENT": "ci", "TEAM": "y", "FORCE": "1"}
    done = make(*options, "push", f"PYTHON={python}", **shell)
    assert json.loads(done.stdout) == ["-m", "scripts.command", "push"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_name_is_refused_before_anything_is_done(command: str, tmp_path: Path) -> None:
    """In a checkout without .venv: not even set-up has begun."""
    for name in ("Makefile", "scripts", "deploy", "local", "templates"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    done = subprocess.run(
        ["make", command, "MODLE=pixtral-12b"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},  # not that of a make around the tests
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    line = done.stderr.splitlines()[0]
    assert line.startswith(f"make {command}: MODLE= is not known")
    assert done.stdout == ""
    assert not (tmp_path / ".venv").exists()
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("words", [["push", "pixtral-12b"], ["psuh"], ["push", "L4", "MODEL=x"]])
def test_a_word_that_is_not_a_command_stops_all(words: list[str], python: Path) -> None:
    done = make(*words, f"PYTHON={python}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "is not a command of this project" in done.stderr


@pytest.mark.parametrize(("word", "near"), [("psuh", "push"), ("smok", "smoke"), ("L4", None)])
def test_a_misspelt_command_is_refused_with_the_nearest(word: str, near: str | None) -> None:
    (line,) = make(word).stderr.splitlines()
    assert f"'{word}' is not a command of this project; " in line
    assert f"did you mean make {near}?" in line or (near is None and "did you mean" not in line)
    assert "written NAME=value" in line


def test_the_name_of_a_model_is_told_how_to_be_given() -> None:
    (line,) = make("plan", "mixtral-8x7b").stderr.splitlines()
    assert line.endswith("as in MODEL=mixtral-8x7b.  Stop.")


def test_help_lists_the_commands() -> None:
    for words in ([], ["help"]):
        done = make(*words)
        assert done.returncode == 0
        assert all(f"make {name}" in done.stdout for name in COMMANDS)
    about = make("help", "push")
    assert about.returncode == 0
    assert about.stdout.startswith("make push [MODEL=] ")
    assert make("push", "help").stdout == about.stdout  # which pushes nothing


def test_a_python_that_is_not_there_is_said() -> None:
    done = make("plan", "PYTHON=python9.9")
    assert done.returncode == 2
    assert "python9.9 is not installed" in done.stderr

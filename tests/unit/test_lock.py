import shutil
from pathlib import Path

import pytest

from scripts import lock, setup


def fake_uv(folder: Path, text: str) -> Path:
    program = folder / "uv"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_platform_without_a_wheel_is_named_with_what_uv_says(tmp_path: Path) -> None:
    uv = fake_uv(
        tmp_path, 'case "$*" in *aarch64-apple*3.12*) echo "x==1 has no wheels"; exit 1; esac'
    )
    with pytest.raises(setup.SetupError) as caught:
        lock.check_platforms(uv, setup.LOCKS["deploy"], [], {})
    assert "--python-platform=aarch64-apple-darwin --python-version=3.12" in str(caught.value)
    assert str(caught.value).endswith("x==1 has no wheels")


def test_each_platform_is_asked_about_with_each_python(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    uv = fake_uv(tmp_path, f'echo "$*" >>{asked}')
    lock.check_platforms(uv, setup.LOCKS["deploy"], ["--index=there"], {})
    lines = asked.read_text().splitlines()
    assert len(set(lines)) == len(lines) == 16
    for line in lines:
        assert "--only-binary=:all: --index=there" in line
        assert str(setup.LOCKS["deploy"]) in line


@pytest.mark.parametrize("settings", [{}, {"find-links": "/wheels"}])
def test_nothing_is_written_before_each_platform_has_wheels(
    settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = tmp_path / "asked"
    text = """
        case "$*" in
            "pip install"*) echo no wheels; exit 1;;
            *"--group dev"*) echo "$*" >>asked;;
        esac
        while [ "$1" != --output-file ]; do shift; done
        echo "added==1" >>"$2" """.replace("asked", str(asked))
    monkeypatch.setattr(setup, "find_uv", lambda: fake_uv(tmp_path, text))
    monkeypatch.setattr(setup, "pip_settings", lambda: settings)
    locks = {name: Path(shutil.copy(path, tmp_path)) for name, path in setup.LOCKS.items()}
    before = [path.read_text() for path in locks.values()]
    monkeypatch.setattr(setup, "LOCKS", locks)
    assert lock.main([]) == 1
    assert "no wheels" in capsys.readouterr().err
    assert [path.read_text() for path in locks.values()] == before
    # PyPI's torch needs CUDA
    (words,) = asked.read_text().splitlines()
    assert words.endswith("--find-links=/wheels" if settings else "--torch-backend=cpu")

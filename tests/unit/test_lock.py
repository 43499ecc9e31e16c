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
        lock.check_platforms(uv, [], {})
    assert "--python-platform=aarch64-apple-darwin --python-version=3.12" in str(caught.value)
    assert str(caught.value).endswith("x==1 has no wheels")


def test_each_platform_is_asked_about_with_each_python(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    lock.check_platforms(fake_uv(tmp_path, f'echo "$*" >>{asked}'), ["--index=there"], {})
    lines = asked.read_text().splitlines()
    assert len(set(lines)) == len(lines) == 16
    for line in lines:
        assert "--only-binary=:all: --index=there" in line
        assert str(setup.LOCKS["deploy"]) in line

"""What packages/start does before vLLM runs, tried with the shell and the interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

from deploy.paths import ROOT

START = ROOT / "packages" / "start"


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)


def prepared(folder: Path) -> str:
    """prepare.sh as it would be read where /packages is another folder."""
    text = (START / "prepare.sh").read_text().replace("/packages", str(ROOT / "packages"))
    (folder / "prepare.sh").write_text(text)
    return f". {folder}/prepare.sh && exec sh -c 'echo $PYTHONPATH'"


def test_the_model_infos_are_where_vllm_keeps_its_cache(tmp_path: Path) -> None:
    places = {
        tmp_path / "home" / ".cache" / "vllm": {"HOME": str(tmp_path / "home")},
        tmp_path / "xdg" / "vllm": {"HOME": "/", "XDG_CACHE_HOME": str(tmp_path / "xdg")},
        tmp_path / "root": {"HOME": "/", "VLLM_CACHE_ROOT": str(tmp_path / "root")},
    }
    for place, variables in places.items():
        assert shell(prepared(tmp_path), **variables).returncode == 0
        found = [
            f"{path.stem} {path.read_text()}" for path in sorted((place / "modelinfos").iterdir())
        ]
        assert "".join(found) == (START / "modelinfos").read_text()


def test_a_cache_that_cannot_be_written_does_not_keep_vllm_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shell(prepared(tmp_path), HOME="/", VLLM_CACHE_ROOT=str(tmp_path / "file"))
    assert done.returncode == 0
    assert f"no model infos in {tmp_path}/file" in done.stderr


def test_the_package_of_the_truss_stays_importable(tmp_path: Path) -> None:
    done = shell(prepared(tmp_path), HOME=str(tmp_path), PYTHONPATH="/packages")
    assert done.stdout.strip() == f"{START}:/packages"
    done = shell(prepared(tmp_path), HOME=str(tmp_path))
    assert done.stdout.strip() == f"{START}"


def test_a_folder_is_completed_with_a_config_json(tmp_path: Path) -> None:
    mounted, whole = tmp_path / "mounted", tmp_path / "whole"
    mounted.mkdir()
    completed = f". {START}/prepare.sh; completed {mounted} {whole} 1000"
    (mounted / "params.json").write_text("{}")
    for _ in range(2):
        assert shell(completed, HOME=str(tmp_path)).returncode == 0
        assert (whole / "params.json").resolve() == mounted / "params.json"
        config = json.loads((whole / "config.json").read_text())
        assert config == {"model_type": "mistral", "max_position_embeddings": 1000}


def test_a_config_json_that_is_there_is_kept(tmp_path: Path) -> None:
    mounted, whole = tmp_path / "mounted", tmp_path / "whole"
    mounted.mkdir()
    completed = f". {START}/prepare.sh; completed {mounted} {whole} 1000"
    (mounted / "config.json").write_text("its own")
    assert shell(completed, HOME=str(tmp_path)).returncode == 0
    assert (whole / "config.json").read_text() == "its own"


def test_the_garbage_collector_rests_until_it_is_asked_for_everything() -> None:
    code = """
import gc
usual = (700, 10, 10)
assert gc.get_threshold() > usual
gc.collect(0)
gc.collect(1)
assert gc.get_threshold() > usual
gc.collect()
assert gc.get_threshold() == usual
assert gc.callbacks == []
"""
    environment = {**os.environ, "PYTHONPATH": str(START)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)

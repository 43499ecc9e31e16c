"""Runs programs of tests/support in their own processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.paths import ROOT
from scripts.modelinfos import SHIPPED


def answer_of(module: str) -> Any:
    """The JSON that a module prints when it is run."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, **vllm_variables(Path(folder))},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def vllm_variables(cache: Path) -> dict[str, str]:
    """For a program that imports vLLM; its cache has the model infos that are shipped. Without them
    vLLM looks at each model in a new process: 8 s of imports."""
    infos = cache / "modelinfos"
    infos.mkdir()
    for line in SHIPPED.read_text().splitlines():
        name, _, info = line.partition(" ")
        (infos / f"{name}.json").write_text(info)
    return {"PYTHONPATH": str(ROOT / "packages"), "VLLM_CACHE_ROOT": str(cache)}

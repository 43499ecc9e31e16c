"""Runs programs of tests/support in their own processes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.paths import MODEL_INFOS, ROOT


def answer_of(module: str) -> Any:
    """The JSON that a module prints when it is run."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, **model_infos(Path(folder)), "PYTHONPATH": str(ROOT / "packages")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def model_infos(cache: Path) -> dict[str, str]:
    """Writes the model infos that are shipped into a folder for vLLM's cache → the variable for it.
    Without them vLLM looks at each model in a new process: 8 s of imports."""
    infos = cache / "modelinfos"
    infos.mkdir(parents=True)
    for line in MODEL_INFOS.read_text().splitlines():
        name, _, info = line.partition(" ")
        (infos / f"{name}.json").write_text(info)
    return {"VLLM_CACHE_ROOT": str(cache)}

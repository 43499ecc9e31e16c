"""Runs programs of tests/support in their own processes."""

import json
import os
import subprocess
import sys
from typing import Any

from deploy.paths import ROOT


def answer_of(module: str) -> Any:
    """The JSON that a module prints when it is run."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "packages")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

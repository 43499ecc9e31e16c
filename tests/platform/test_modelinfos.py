"""What is shipped of vLLM's cache is what the pinned vLLM writes there itself."""

import subprocess
import sys
from pathlib import Path

from deploy.paths import MODEL_INFOS, ROOT


def test_the_shipped_model_infos_are_those_of_this_version(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.modelinfos", "--output", str(tmp_path / "made")]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert MODEL_INFOS.read_text() == (tmp_path / "made").read_text(), "run: make modelinfos"

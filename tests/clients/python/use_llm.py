"""llm: the command line tool, with a model of its own configuration file."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import MODEL, URL, WIND, run


def ask(*options):
    with tempfile.TemporaryDirectory() as folder:
        entry = f'- model_id: here\n  model_name: {MODEL}\n  api_base: "{URL}/v1"\n'
        Path(folder, "extra-openai-models.yaml").write_text(entry)
        environment = {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
        command = [str(Path(sys.executable).parent / "llm"), "-m", "here", *options, WIND]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-300:])
        return done.stdout.strip()


run(plain=lambda: ask("--no-stream"), stream=ask)

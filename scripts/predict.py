"""Sends one request to the deployed model that config.yaml names, by `truss predict`."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from deploy import baseten
from deploy.paths import ROOT
from scripts.command import command

DATA = json.dumps(
    {"messages": [{"role": "user", "content": "What is the Mistral wind?"}], "max_tokens": 100}
)


@command("predict")
def main(options: argparse.Namespace) -> int:
    words = ["predict", "--published", f"--data={DATA if options.data is None else options.data}"]
    return subprocess.run(
        [Path(sys.executable).with_name("truss"), *words], cwd=ROOT, env=baseten.truss_environment()
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

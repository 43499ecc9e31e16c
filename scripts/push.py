"""Deploys config.yaml to Baseten.

Promises: without a choice config.yaml is pushed as it is; with MODEL= or any other choice it is
written first, as by `make config`, and an impossible choice, or hand-made changes that would be
lost, push nothing; without a key it is left as it was. Truss's own output is shown, and its exit
code is the command's.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from deploy import baseten
from deploy.edits import write_config
from deploy.options import from_arguments
from deploy.paths import ROOT
from scripts.command import command

CONFIG = ROOT / "config.yaml"
# What is easily missed after a push
AFTER = (
    "make push: a model's first push is its production deployment. A later one is reached by its "
    "own id alone and serves nobody yet: ENVIRONMENT=production makes it the one that does.\n"
    "make push: next, once it is up: make autoscale MODEL_ID=… and make smoke MODEL_ID=… "
    "(make deploy does all of it)"
)
AFTER_ENVIRONMENT = (
    "make push: next, once it is up: make autoscale and make smoke with MODEL_ID= and ENVIRONMENT= "
    "(make deploy does all of it)"
)
NOT_CHOICES = ("environment", "team", "force")  # where to push and how, not what


def arguments(options: argparse.Namespace) -> list[str]:
    """Of `truss push`."""
    words = ["push", "--publish", "--trusted"]
    words += [f"--environment={options.environment}"] if options.environment else []
    return words + ([f"--team={options.team}"] if options.team else [])


@command("push")
def main(options: argparse.Namespace) -> int:
    choices = {name: value for name, value in vars(options).items() if name not in NOT_CHOICES}
    if any(value is not None for value in choices.values()):
        chosen, ready = from_arguments(options), baseten.truss_environment  # the key, if any
        print(write_config(options.model, chosen, CONFIG, options.force, ready))
    words = arguments(options)
    print(f"truss {' '.join(words)}", flush=True)
    truss = Path(sys.executable).with_name("truss")
    done = subprocess.run([truss, *words], cwd=ROOT, env=baseten.truss_environment())
    if done.returncode == 0:
        print(AFTER_ENVIRONMENT if options.environment else AFTER)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

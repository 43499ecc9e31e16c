"""Deploys config.yaml to Baseten.

Promises: without a choice config.yaml is pushed as it is; with MODEL= or any other choice it is
written first, as by `make config`, and an impossible choice, or hand-made changes that would be
lost, push nothing; without a key it is left as it was. A line says what is pushed; Truss's own
output is shown, and its exit code is the command's.
"""

import argparse
import functools
import subprocess
import sys
from pathlib import Path

from deploy import baseten
from deploy.edits import write_config
from deploy.options import from_arguments
from deploy.paths import ROOT
from deploy.summary import in_a_line
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
    if options.environment:
        baseten.checked_id("ENVIRONMENT", options.environment)
    ready = functools.cache(baseten.truss_environment)  # the key, if there is one
    if any(value is not None for value in choices.values()):
        print(write_config(options.model, from_arguments(options), CONFIG, options.force, ready))
    what = in_a_line(CONFIG)
    words, environment = arguments(options), ready()
    print(f"make push: {what}\ntruss {' '.join(words)}", flush=True)
    truss = Path(sys.executable).with_name("truss")
    done = subprocess.run([truss, *words], cwd=ROOT, env=environment)
    if done.returncode == 0:
        print(AFTER_ENVIRONMENT if options.environment else AFTER)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

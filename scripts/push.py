"""Deploys config.yaml to Baseten.

Promises: without a choice, pushes config.yaml as it is; with MODEL= or any other choice, writes it
first, as `make config` does. An impossible choice, or hand-made changes that would be lost, push
nothing; a missing key leaves the file as it was. Prints a line about what is pushed, and Truss's
own output; returns Truss's exit code.
"""

import argparse
import functools
import sys

from deploy import baseten
from deploy.edits import write_config
from deploy.options import are_chosen, from_arguments
from deploy.paths import CONFIG
from deploy.summary import in_a_line
from scripts.command import command

# Easily missed after a push
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


@command("push")
def main(options: argparse.Namespace) -> int:
    if options.environment:
        baseten.checked_id("ENVIRONMENT", options.environment)
    ready = functools.cache(baseten.truss_environment)  # the key, if there is one
    if are_chosen(options):
        print(write_config(options.model, from_arguments(options), CONFIG, options.force, ready))
    what = in_a_line(CONFIG)
    words, environment = baseten.push_words(options.environment, options.team), ready()
    print(f"make push: {what}\ntruss {' '.join(words)}", flush=True)
    done = baseten.truss(*words, environment=environment)
    if done.returncode == 0:
        print(AFTER_ENVIRONMENT if options.environment else AFTER)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

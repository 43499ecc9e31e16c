"""Sends one request to the deployed model that config.yaml names, with `truss predict`."""

import argparse
import json
import subprocess
import sys

from deploy import baseten
from deploy.baseten import BasetenError
from deploy.errors import UsageError
from deploy.paths import CONFIG
from scripts.command import command

DATA = json.dumps(
    {"messages": [{"role": "user", "content": "What is the Mistral wind?"}], "max_tokens": 100}
)


@command("predict")
def main(options: argparse.Namespace) -> int:
    if not CONFIG.is_file():
        raise BasetenError("config.yaml, which names the model, is missing; make config writes it")
    data = DATA if options.data is None else options.data
    try:
        json.loads(data)
    except ValueError as error:
        raise UsageError(
            f"DATA= is not JSON ({error}); it is a request's body, as in "
            """DATA='{"prompt": "What is the Mistral wind?"}'"""
        ) from error
    done = baseten.truss("predict", "--published", f"--data={data}", stderr=subprocess.PIPE)
    if done.returncode and "Traceback" in done.stderr:
        raise BasetenError(f"truss predict failed: {baseten.message(last_line(done.stderr))}")
    sys.stderr.write(done.stderr)
    return done.returncode


def last_line(text: str) -> str:
    """The last line of a traceback: the error."""
    return text.strip().rpartition("\n")[2]


if __name__ == "__main__":
    sys.exit(main())

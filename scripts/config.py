"""Writes config.yaml for a model; on any error the file stays as it was."""

import argparse
import sys

from deploy.edits import write_config
from deploy.options import from_arguments
from deploy.paths import CONFIG
from scripts.command import command


@command("config")
def main(options: argparse.Namespace) -> None:
    output = options.output or CONFIG
    print(write_config(options.model, from_arguments(options), output, options.force))


if __name__ == "__main__":
    sys.exit(main())

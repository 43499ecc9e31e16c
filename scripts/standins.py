"""Trains the stand-ins that are missing."""

import argparse
import sys

from deploy import cards
from local.standins.cache import ensure_all
from scripts.command import command


@command("standins")
def main(options: argparse.Namespace) -> None:
    for folder in ensure_all([cards.load(options.model)] if options.model else cards.load_all()):
        print(folder)


if __name__ == "__main__":
    sys.exit(main())

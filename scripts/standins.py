"""Trains the stand-ins that are missing."""

import argparse
import sys

from deploy import cards
from local.standins.cache import ensure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="local.standins.cache", description=__doc__.splitlines()[0]
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(cards.names()))
    options = parser.parse_args(arguments)
    try:
        chosen = [cards.load(name) for name in options.models] or cards.load_all()
    except cards.CardError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    for card in chosen:
        print(ensure(card))
    return 0


if __name__ == "__main__":
    sys.exit(main())

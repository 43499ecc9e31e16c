"""Writes config.yaml for a model."""

import argparse
import sys
from pathlib import Path

from deploy import cards
from deploy.cards import UsageError
from deploy.config import planned, render, write
from deploy.edits import check_overwrite
from deploy.options import add_arguments, from_arguments
from deploy.paths import ROOT


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make config", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cards.DEFAULT_MODEL, help=", ".join(cards.names()))
    add_arguments(parser)
    parser.add_argument(
        "--force", action="store_true", help="overwrite a config.yaml that was changed by hand"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "config.yaml")
    options = parser.parse_args(arguments)
    try:
        card = cards.load(options.model)
        choices = from_arguments(options)
        chosen = planned(card, choices)
        text = render(card, choices)
        check_overwrite(options.output, options.force)
        write(text, options.output)
    except UsageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    shorter = card.context.length - chosen.context if choices.context is None else 0
    less = f"; the model's {card.context.length} do not fit" if shorter else ""
    note = f"; {chosen.note}" if chosen.note else ""
    print(f"wrote {options.output.name}: {card.title}")
    print(f"  accelerator  {chosen.accelerator}")
    print(f"  precision    {chosen.precision.name}, --dtype {chosen.dtype}{note}")
    print(f"  context      {chosen.context} tokens{less}")
    print(f"  requests     {chosen.max_num_seqs} batched; autoscaling {chosen.concurrency_target}")
    where = "mirrored by Baseten" if choices.source == "bdn" else "downloaded by vLLM at each start"
    print(f"  weights      {chosen.checkpoint.repo}, {where}, with the secret {choices.secret}")
    if card.images:
        named = ", ".join(choices.hosts) or "data URLs alone"
        allowed = "any public address" if choices.image_hosts is None else named
        print(f"  images from  {allowed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

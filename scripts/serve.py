"""Runs the Truss here, in the foreground, until Ctrl-C or SIGTERM."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from deploy import cards
from deploy.cards import Card
from deploy.config import PORT, render
from deploy.options import add_arguments, from_arguments
from local.truss import (
    NGINX_PORT,
    SIGNALS,
    URL,
    CannotServeError,
    Image,
    build,
    check_machine,
    check_precision,
    check_workers,
    environment,
    mounts,
    run,
    secrets,
    stage,
    workers_of,
)


def _say(text: str) -> None:
    print(f"[serve] {text}", flush=True)


def _show_how_to_call(card: Card | None) -> None:
    _say(f"{card.title if card else 'the model'} answers at {URL}; Ctrl-C stops it. Try:")
    print(
        f"""
curl --no-buffer {URL}/predict \\
  -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": "What is the Mistral wind?"}}], "stream": true}}'
""",
        flush=True,
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cards.DEFAULT_MODEL, help=", ".join(cards.names()))
    parser.add_argument(
        "--truss", type=Path, help="run this Truss folder, not one made from a card"
    )
    add_arguments(parser)
    parser.add_argument(
        "--secrets", type=Path, help="folder with a file per secret, for a config that asks for any"
    )
    parser.add_argument(
        "--tensor-parallel-size", metavar="WORKERS", help="default: as many as GPUs"
    )
    parser.add_argument(
        "--variable",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set this in the container, whatever the config says; may be given again",
    )
    options = parser.parse_args(arguments)
    for number in SIGNALS:  # until the container runs, a stop unwinds and so cleans up
        signal.signal(number, signal.default_int_handler)
    try:
        card = None if options.truss else cards.load(options.model)
        check_machine({"nginx": NGINX_PORT, "vLLM": PORT})
        with tempfile.TemporaryDirectory(prefix="truss-") as folder:
            truss = options.truss or Path(folder)
            if card:
                _say(f"rendering the config of {card.title}")
                workers = workers_of(options.tensor_parallel_size)
                stage(render(card, from_arguments(options, workers)), truss)
            elif not (truss / "config.yaml").is_file():
                raise CannotServeError(f"{truss} is no Truss: it has no config.yaml")
            _say("building the Truss context")
            files, config = build(truss)
        check_precision(config)
        check_workers(config, len(os.sched_getaffinity(0)))
        mounted = {**mounts(config), **secrets(config, options.secrets)}
        image = Image(files, mounted, {**environment(config), **dict(options.variable)})
        _say("starting the container: supervisord, nginx, vLLM")
        return run(image, _say, lambda: _show_how_to_call(card))
    except (ValueError, RuntimeError) as error:  # ours, and those of Truss for a folder of its own
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted before the container was started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

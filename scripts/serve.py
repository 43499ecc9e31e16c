"""Runs the Truss here, in the foreground, until Ctrl-C or SIGTERM."""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from deploy import cards
from deploy.cards import Card
from deploy.config import PORT, render
from deploy.errors import UsageError
from deploy.options import Options, from_arguments
from deploy.paths import CONFIG
from local.truss import (
    NGINX_PORT,
    SHARED_CACHE,
    SIGNALS,
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
from scripts.command import command


def _say(text: str) -> None:
    print(f"[serve] {text}", flush=True)


def age() -> float:
    """Seconds since this process began, including set-up (scripts/command.py)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _show_how_to_call(card: Card | None, url: str) -> None:
    _say(f"{card.title if card else 'the model'} answers at {url}; Ctrl-C stops it.")
    _say(f"Ready {age():.0f} s after the command began. Try:")
    print(
        f"""
curl --no-buffer {url}/predict \\
  -H 'Content-Type: application/json' \\
  -d '{{"messages": [{{"role": "user", "content": "What is the Mistral wind?"}}], "stream": true}}'
""",
        flush=True,
    )


def variables(given: list[str]) -> dict[str, str]:
    """NAME=VALUE words as variables; `UsageError` for any other word."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"VARIABLE={text!r} is not NAME=VALUE, such as VARIABLE=A=1")
        found[name] = value
    return found


def mount_folders(given: list[str]) -> dict[str, Path]:
    """PLACE=FOLDER words, separated by commas: places in the container and the folders to mount
    there."""
    found = {}
    for text in [word for words in given for word in re.split(r",(?=/[^,=]*=)", words)]:
        place, equals, folder = text.partition("=")
        if not equals or not place.startswith("/"):
            raise UsageError(f"MOUNT={text!r} is not PLACE=FOLDER, such as /adapters/legal=adapter")
        if not Path(folder).is_dir():
            raise UsageError(f"MOUNT={text!r}: there is no folder {folder!r} here")
        found[place] = Path(folder).resolve()
    return found


@command("serve")
def main(options: argparse.Namespace) -> int:
    for number in SIGNALS:  # until the container runs, a stop unwinds the stack and so cleans up
        signal.signal(number, signal.default_int_handler)
    more = variables(options.variable)
    if options.cache and not options.cache.is_dir():
        raise UsageError(f"CACHE={str(options.cache)!r}: there is no such folder; make it first")
    try:
        given = mount_folders(options.mount)
        as_it_is = options.config or options.truss is not None
        chosen = from_arguments(options, workers_of(options.tp))
        if as_it_is and (options.model or chosen != Options()):
            raise UsageError(
                "CONFIG=1 runs config.yaml as it is, with its own model and choices; leave the "
                "others out, or CONFIG=1"
            )
        card = None if as_it_is else cards.load(options.model or cards.DEFAULT_MODEL)
        nginx = options.nginx != "0"
        check_machine({**({"nginx": NGINX_PORT} if nginx else {}), "vLLM": PORT}, nginx)
        with tempfile.TemporaryDirectory(prefix="truss-") as folder:
            truss = options.truss or Path(folder)
            if card:
                _say(f"rendering the config of {card.title}")
                stage(render(card, chosen), truss)
            elif options.config:
                if not CONFIG.is_file():
                    raise CannotServeError("config.yaml is missing; make config writes it")
                _say("taking config.yaml as it is")
                stage(CONFIG.read_text(encoding="utf-8"), truss)
            elif not (truss / "config.yaml").is_file():
                raise CannotServeError(f"{truss} is not a Truss: it has no config.yaml")
            _say("building the Truss context")
            files, start, config = build(truss, nginx)
        check_precision(config)
        check_workers(config, as_it_is)
        mounted = {**mounts(config, given), **secrets(config, options.secrets)}
        writable = {SHARED_CACHE: options.cache} if options.cache else {}
        image = Image(files, mounted, {**environment(config), **more}, start, writable)
        _say(f"starting the container: {'supervisord, nginx, vLLM' if nginx else 'vLLM'}")
        return run(image, _say, lambda: _show_how_to_call(card, image.url))
    except UsageError:
        raise
    except (ValueError, RuntimeError) as error:  # from Truss, about a user's own folder
        raise CannotServeError(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted before the container was started") from None


if __name__ == "__main__":
    sys.exit(main())

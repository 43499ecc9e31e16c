"""Finds what a config.yaml has that its header does not render to, and an overwrite would lose.

Promises: compares the file with what its header renders to now, so that a limit, a flag or a
variable changed by hand is never overwritten silently: refuses to overwrite such a file, and shows
the lines that would be lost, unless FORCE=1 is given. Names the choices that the file was made with
and that the new command leaves out, such as own weights.
"""

import difflib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from deploy import cards
from deploy.config import render, write
from deploy.errors import UsageError
from deploy.options import Options, as_words, from_words
from deploy.paths import ROOT
from deploy.summary import summary

HEADER = re.compile(r"# Written by `make config MODEL=(.*)` from templates/")
SHOWN = 20  # lines of what would be lost
SERVED = ("MODEL=", "WEIGHTS=", "ADAPTERS=")  # they decide what a deployment serves, not how


class EditedError(UsageError):
    """A config.yaml that differs from what its header renders to."""


def chosen_by(text: str) -> tuple[str, Options] | None:
    """The model and the options that the header of a config.yaml names; None without a header."""
    found = HEADER.search("\n".join(text.splitlines()[:5]))
    if not found:
        return None
    model, *words = shlex.split(found[1])
    return model, from_words(words)


def lost(text: str) -> list[str]:
    """The lines of a config.yaml that differ from what its header renders to, as a diff: - for
    lines that would be lost, + for lines that would replace them."""
    try:
        chosen = chosen_by(text)
        if chosen is None:
            return ["- all of it: it does not say which `make config` wrote it"]
        model, options = chosen
        rendered = render(cards.load(model), options)
    except (UsageError, ValueError) as error:
        return [f"- all of it: what its header names cannot be rendered: {error}"]
    changes = difflib.unified_diff(text.splitlines(), rendered.splitlines(), n=0, lineterm="")
    return [line for line in changes if re.match(r"[-+](?!--|\+\+)", line)]


def check_overwrite(path: Path, force: bool) -> None:
    """`EditedError` if overwriting the config.yaml at `path` would lose lines, unless `force`."""
    if force or not path.is_file():
        return
    try:
        found = lost(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise EditedError(f"{path.name} is not UTF-8: {error}; FORCE=1 overwrites it") from error
    if found:
        more = [f"… and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        shown = "\n".join(f"  {line}" for line in [*found[:SHOWN], *more])
        raise EditedError(
            f"{path.name} is not what its header renders to: it, the card or templates/ was "
            f"changed since. This would be lost:\n{shown}\n"
            "Push it as it is with `make push` alone, or overwrite it with FORCE=1"
        )


def write_config(
    model: str | None,
    options: Options,
    path: Path,
    force: bool,
    ready: Callable[[], object] | None = None,
) -> str:
    """Writes config.yaml for a model → a summary of it. On a `UsageError`, or an error from
    `ready`, the file stays as it was. `ready` is called once the choice is known to be possible. A
    caller that passes it pushes the file at once, so leaving out the model that the file had is an
    error."""
    card = cards.load(model or cards.DEFAULT_MODEL)
    text = render(card, options)
    check_overwrite(path, force)
    lost = left_out(path, model, options)
    dropped = f"{' '.join(lost)}: {path.name} had it; give it again to keep it" if lost else ""
    if ready:
        if not (model or force) and any(word.startswith(SERVED) for word in lost):
            raise UsageError(f"{dropped}, or push {card.name} by MODEL={card.name}")
        ready()
    write(text, path)
    said = f"wrote {_shown(path)}: {summary(card, options)}"
    return f"{said}\n  left out     {dropped}" if dropped else said


def left_out(path: Path, model: str | None, options: Options) -> list[str]:
    """The choices that the config.yaml at `path` was made with and these leave out, for the same
    model; empty if there are none. Only the command line counts as a choice: otherwise adding GPU=
    to a fine-tune's command would silently go back to its base model. A choice that is given again,
    with any value, replaces the old one."""
    try:
        before = chosen_by(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, UsageError):
        return []
    if before is None or (model or before[0]) != before[0]:
        return []  # the user named another model
    lost = [] if model or before[0] == cards.DEFAULT_MODEL else [f"MODEL={before[0]}"]
    kept = {word.partition("=")[0] for word in shlex.split(as_words(options))}
    words = shlex.split(as_words(before[1]))
    return lost + [shlex.quote(word) for word in words if word.partition("=")[0] not in kept]


def _shown(path: Path) -> str:
    """The path as the user can type it where make runs."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

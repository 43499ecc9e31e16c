"""A run of a part of `make bench`: its finished rounds, and how it resumes after it was stopped.

Promises: each round is saved as soon as it is finished, and a run of the same part, model and
sources resumes from there; any other run, or an unreadable file, starts again.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.paths import ROOT

SOURCES = ("bench", "local", "packages", "scripts", "templates")

Key = Mapping[str, Any]  # JSON-compatible


def sources() -> str:
    """A hash of everything in this repository that metrics depend on."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".json", ".j2", ".sh", ".conf"):
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Session:
    def __init__(self, file: Path, key: Key, console: Console, fresh: bool = False) -> None:
        """`file` keeps the finished rounds; `key` says what the metrics are of."""
        self.file, self.key, self.console = file, dict(key), console
        if fresh:
            self.forget()
        self.done: dict[str, list[Any]] = read(file, self.key)
        if self.done:
            self.say(f"{sum(map(len, self.done.values()))} rounds are there; going on")
        elif file.exists():
            self.say(f"{file.name} is of other sources than these, or unreadable; starting again")

    def lacks(self, name: str, rounds: int) -> bool:
        """Whether any of the rounds `name` is unfinished."""
        return len(self.done.get(name, [])) < rounds

    def each(self, name: str, rounds: int, do: Callable[[int], Any]) -> list[Any]:
        """The results of `do` for each number below `rounds`; calls it only for missing ones."""
        found = self.done.setdefault(name, [])
        for number in range(len(found), rounds):
            started = time.monotonic()
            found.append(do(number))
            self._keep()
            seconds = time.monotonic() - started
            left = (rounds - number - 1) * seconds / 60
            self.say(
                f"{name}: round {number + 1} of {rounds} took {seconds:.0f} s; "
                f"about {left:.0f} min left of these"
            )
        return found

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def forget(self) -> None:
        """Deletes the file: the part is complete, and written elsewhere."""
        self.file.unlink(missing_ok=True)

    def _keep(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"key": self.key, "done": self.done}), encoding="utf-8")
        os.replace(draft, self.file)


def file_name(name: str) -> str:
    """A part's name or a URL in a form that can be a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def read(file: Path, key: Key) -> dict[str, list[Any]]:
    """The rounds in a file that has exactly this key."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("key") != dict(key):
        return {}
    done: dict[str, list[Any]] = kept["done"]
    return done

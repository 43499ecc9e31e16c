"""A run of a part of `make bench`: what is done of it, what is shown of it, how it goes on.

Promises: each round is in a file as soon as it is done, and a run of the same part, plan, model and
sources goes on from there; another run, or a file that cannot be read, begins anew. Says after each
round about how long is left, from the rounds so far.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from deploy.paths import ROOT

SOURCES = ("bench", "local", "packages", "scripts", "templates")

Key = Mapping[str, Any]  # as JSON can hold it


def sources() -> str:
    """A hash of everything in this repository that figures depend on."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".json", ".jinja", ".sh", ".conf", ".txt"):
                digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Session:
    def __init__(self, file: Path, key: Key, console: Console, fresh: bool = False) -> None:
        """`file` keeps what is done; `key` says what the figures are of."""
        self.file, self.key, self.console = file, dict(key), console
        if fresh:
            self.forget()
        self.done: dict[str, list[Any]] = read(file, self.key)
        if file.exists() and not self.done:
            self.say(f"{file.name} is of other sources than these, or unreadable; begun anew")
        self.expected = 0.0  # seconds of a round, before the first has been timed
        self.rounds = 0  # in all
        self.spent: list[float] = []  # seconds of the rounds of this run
        self.status: Status | None = None

    @contextmanager
    def expecting(self, rounds: int, seconds: float) -> Iterator[None]:
        """A part of so many rounds, of about so many seconds each."""
        self.rounds, self.expected = rounds, seconds
        kept = self._finished()
        if kept:
            self.say(f"{kept} of {rounds} rounds are there from an earlier run; going on")
        with self.console.status("getting ready") as self.status:
            yield
        self.status = None

    def lacks(self, name: str, rounds: int) -> bool:
        """Whether any of the rounds `name` has not been done."""
        return len(self.done.get(name, [])) < rounds

    def each(self, name: str, rounds: int, do: Callable[[int], Any]) -> list[Any]:
        """What `do` gives for each number below `rounds`; only of those that are not there yet."""
        found = self.done.setdefault(name, [])
        for number in range(len(found), rounds):
            self.doing(f"{name}: round {number + 1} of {rounds}")
            started = time.monotonic()
            found.append(do(number))
            self.spent.append(time.monotonic() - started)
            self._keep()
            self.say(
                f"{name}: round {number + 1} of {rounds} took {self.spent[-1]:.0f} s; "
                f"{shown(self.left())} left"
            )
        return found

    def left(self) -> float:
        """About how many seconds the rest takes."""
        a_round = sum(self.spent) / len(self.spent) if self.spent else self.expected
        return (self.rounds - self._finished()) * a_round

    def doing(self, text: str) -> None:
        """What is being done, shown until the next on a terminal, else in a line of its own."""
        text = f"{text}; {shown(self.left())} left"
        if self.status and self.console.is_terminal:
            self.status.update(text)
        else:
            self.say(text)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def forget(self) -> None:
        """The part is complete, and written elsewhere."""
        self.file.unlink(missing_ok=True)

    def _finished(self) -> int:
        return sum(map(len, self.done.values()))

    def _keep(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"key": self.key, "done": self.done}), encoding="utf-8")
        os.replace(draft, self.file)


def file_name(name: str) -> str:
    """A part's name or a URL as the name of a file."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def read(file: Path, key: Key) -> dict[str, list[Any]]:
    """The rounds that a file keeps of this very key."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or kept.get("key") != dict(key):
        return {}
    done: dict[str, list[Any]] = kept["done"]
    return done


def shown(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"

"""The time from the start of the container to the first correct answer: a part of `make bench`.

Promises: the ways to start alternate, round by round. The page cache is as warm as earlier starts
left it, for all alike; for a cold start the files that a start reads are evicted from it.
"""

import os
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import servers
from bench.errors import BenchError
from bench.metrics import Goal, Spread, spread, turned
from bench.part import Results
from bench.plots import Bars, Plot, link
from bench.session import Session
from deploy import cards
from deploy.cards import Card
from deploy.config import PORT
from deploy.markdown import row, table
from local import sandbox
from local.truss import NGINX_PORT

ROUNDS = 3
KEEP_SECONDS = 60
PLOT = "startup.svg"

CONTAINER = "this Truss in its container"
BARE = "bare `vllm serve`, same flags and variables"
COLD_CONTAINER = f"cold: {CONTAINER}"
COLD_BARE = f"cold: {BARE}"
COMPILING = "torch.compile on, nothing compiled yet"
COMPILED = "torch.compile on, after another replica: /cache/model"

OF_BARE = {BARE: CONTAINER, COLD_BARE: COLD_CONTAINER}  # pairs to compare
SHOWN = (CONTAINER, *OF_BARE, COLD_CONTAINER, COMPILING, COMPILED)  # in this order
GOAL = Goal("at most 0.75", most=0.75)

Start = Callable[[], float]  # seconds to the first correct answer


def starts(card: Card) -> dict[str, Start]:
    """The ways to start a model, by name."""
    truss = servers.truss(card)

    def container() -> float:
        with servers.started(servers.contained(truss), NGINX_PORT, card) as seconds:
            return seconds

    def bare() -> float:
        with servers.started(servers.bare(truss), PORT, card) as seconds:
            return seconds

    def cold(start: Start) -> Start:
        """The same, with files that this machine has not read since it booted."""

        def from_disk() -> float:
            library = Path(sysconfig.get_path("stdlib"))
            for folder in (sandbox.VENV, library, *truss.image.mounts.values()):
                forget(folder)
            return start()

        return from_disk

    shared = tempfile.TemporaryDirectory(prefix="bench-shared-")  # kept until the last start

    def compiling() -> float:
        folder = Path(tempfile.mkdtemp(dir=shared.name))
        server = servers.contained(servers.compiling(truss, folder))
        with servers.started(server, NGINX_PORT, card) as seconds:
            kept.append(when_kept(folder))
        return seconds

    def compiled() -> float:
        if not kept:
            compiling()
        server = servers.contained(servers.compiling(truss, kept[-1]))
        with servers.started(server, NGINX_PORT, card) as seconds:
            return seconds

    kept: list[Path] = []
    return {
        CONTAINER: container,
        BARE: bare,
        COLD_CONTAINER: cold(container),
        COLD_BARE: cold(bare),
        COMPILING: compiling,
        COMPILED: compiled,
    }


def when_kept(shared: Path) -> Path:
    """The folder, once a replica has saved its compiled code there; else `BenchError`."""
    deadline = time.monotonic() + KEEP_SECONDS
    while not [*shared.glob("vllm-compiled-*")]:
        if time.monotonic() > deadline:
            raise BenchError(f"nothing was kept in /cache/model within {KEEP_SECONDS} s")
        time.sleep(0.2)
    return shared


def forget(folder: Path) -> None:
    """Evicts the files in a folder from the page cache, except those that a running process has
    mapped into its memory."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turn(session: Session, compared: Mapping[str, Start], rounds: int) -> list[Any]:
    """The seconds of each way, once per round; each round begins with another."""

    def one_round(number: int) -> dict[str, float]:
        found = {}
        for name in turned([*compared], number):
            session.say(f"starts: round {number + 1} of {rounds}, {name}")
            found[name] = compared[name]()
        return found

    return session.each("starts", rounds, one_round)


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    card = cards.load(model or cards.DEFAULT_MODEL)
    compared, rounds = starts(card), 1 if quick else ROUNDS
    if quick:
        compared = {name: compared[name] for name in (CONTAINER, BARE)}
    return {"measured": {card.name: in_turn(session, compared, rounds)}}


def ratio(rounds: Sequence[Mapping[str, float]], bare: str) -> Spread:
    return spread(done[OF_BARE[bare]] / done[bare] for done in rounds)


def values(results: Results) -> dict[str, str]:
    """The values for the braces in bench/text/startup.md."""
    (rounds,) = results["measured"].values()
    rows = []
    for name in (it for it in SHOWN if it in rounds[0]):
        seconds, cells = spread(done[name] for done in rounds).shown(1), ["", "", ""]
        if name in OF_BARE:
            found = ratio(rounds, name)
            verdict = "met" if GOAL.met(found) else "**missed**"
            cells = [f"× {found.shown(2)}", GOAL.text, verdict]
        rows.append(row(name, seconds, *cells))
    return {
        "table": table(["start", "seconds", "this Truss to it, in a round", "goal", ""], rows),
        "plot": link("seconds to the first correct answer", PLOT),
        "ratio": f"{ratio(rounds, BARE).median:.2f}",
    }


def plots(results: Results) -> dict[str, Plot]:
    model, rounds = next(iter(results["measured"].items()))
    bars = {name: spread(done[name] for done in rounds) for name in rounds[0]}
    return {PLOT: Plot(model, (Bars("seconds to the first correct answer", bars),))}

"""Trains the small stand-in checkpoints that the local container serves in place of real weights.

Promises: a stand-in has its card's architecture, file format and real tokenizer, and answers the
dialogues of local/standins/dialogues.yaml exactly; it is built once and reused until one of its
inputs changes; a folder in the cache is complete. Refuses a stand-in that does not pass its exam
(exam.py).
"""

import fcntl
import hashlib
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.cards import Card, CardError
from deploy.paths import ROOT

CACHE = ROOT / ".cache" / "standins"


def tokenizer_path(card: Card) -> Path:
    """The card's tokenizer as mistral_common ships it."""
    import mistral_common

    path = Path(mistral_common.__file__).parent / "data" / card.standin.tokenizer
    if not path.is_file():
        known = ", ".join(sorted(it.name for it in path.parent.iterdir()))
        raise CardError(
            f"{card.name}.yaml: standin.tokenizer: {path.name!r} is not one of mistral_common's: "
            f"{known}"
        )
    return path


# The sections of a card that determine its stand-in; limits, serving and the like do not.
MADE_FROM = {"name", "formats", "architecture", "context", "features"}


def key(card: Card) -> str:
    """A hash of the stand-in's inputs: card, dialogues, code, libraries."""
    made_from = card.model_dump_json(include=MADE_FROM)
    digest = hashlib.sha256(made_from.encode())
    digest.update(
        f"{card.weights.files} {card.hardware.precision} {card.standin.tokenizer}".encode()
    )
    for path in sorted(Path(__file__).parent.glob("*.[py]*")):
        digest.update(path.read_bytes())
    for library in ("torch", "transformers", "mistral-common"):
        digest.update(f"{library}=={version(library)}".encode())
    return digest.hexdigest()[:16]


def ensure_all(cards: Sequence[Card], cache: Path = CACHE) -> list[Path]:
    """The folders of the cards' stand-ins; builds missing ones concurrently, as many at a time as
    there are cores."""
    missing = [card for card in cards if not _folder(card, cache).exists()]
    # the slowest first: images, then experts
    missing.sort(key=lambda card: (not card.features.images, not card.architecture.experts))
    cores = len(os.sched_getaffinity(0))
    if len(missing) > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(cores, spawn) as pool:
            list(pool.map(_ensure_in_a_process, missing, [cache] * len(missing)))
    return [ensure(card, cache) for card in cards]


def _ensure_in_a_process(card: Card, cache: Path) -> None:
    ensure(card, cache, Console(force_terminal=False))  # two bars would overwrite each other


def _folder(card: Card, cache: Path) -> Path:
    return cache / f"{card.name}-{key(card)}"


def ensure(card: Card, cache: Path = CACHE, console: Console | None = None) -> Path:
    """The folder of the card's stand-in; builds it, and shows progress, if it is missing."""
    folder = _folder(card, cache)
    cache.mkdir(parents=True, exist_ok=True)
    console = console or Console()
    with _lock(cache / f"{card.name}.lock", console, card.name):
        if not folder.exists():
            stale = [path for path in cache.iterdir() if _is_of(card, path)]
            draft = cache / f".{folder.name}"  # this process holds the lock: no other writes it
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            try:
                _build(card, draft, console)
                os.replace(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            for path in stale:
                shutil.rmtree(path)
    return folder


def _is_of(card: Card, path: Path) -> bool:
    """Whether a folder of the cache is the card's: complete or, with a leading dot, unfinished."""
    return re.fullmatch(rf"\.?{re.escape(card.name)}-[0-9a-f]{{16}}", path.name) is not None


@contextmanager
def _lock(path: Path, console: Console, name: str) -> Iterator[None]:
    """One builder at a time; the lock ends with the process, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"stand-in {name}: another process is building it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(card: Card, folder: Path, console: Console) -> None:
    """Trains the card's stand-in and writes it into `folder`, with progress."""
    columns = (TextColumn("stand-in {task.fields[name]}: {task.description}"), BarColumn())
    terminal = console.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not terminal) as bar:
        task = bar.add_task("loading torch", name=card.name)

        def show(text: str, done: float | None) -> None:
            if done is not None:
                bar.update(task, total=1.0, completed=done, description=text)
            if done is None or not terminal:
                console.print(f"stand-in {card.name}: {text}")

        show("training, about a minute", 0.0)
        started = time.monotonic()
        from local.standins.recipe import build  # imports torch, which takes seconds

        build(card, tokenizer_path(card), folder, show)
        shutil.copy(tokenizer_path(card), folder / card.tokenizer_file)
    console.print(f"stand-in {card.name}: trained in {time.monotonic() - started:.0f} s")

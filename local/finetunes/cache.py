"""Stand-ins for a user's own weights and adapters, made once from a card's stand-in.

Promises: a folder in the cache is complete, and is rebuilt if the stand-in or this code changes.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from deploy.cards import Card
from local.standins import cache as standins

CACHE = standins.CACHE.with_name("finetunes")
QUESTION = "What is the Mistral wind?"  # their answer differs from the stand-in's
ANSWER = "The Mistral is a wind; please keep our conversation short."


def key(card: Card) -> str:
    digest = hashlib.sha256(standins.key(card).encode())
    digest.update(f"{QUESTION} {ANSWER}".encode())
    digest.update(Path(__file__).with_name("lora.py").read_bytes())
    return digest.hexdigest()[:16]


def ensure(card: Card, cache: Path = CACHE) -> Path:
    """The folder with `adapter`, and with the adapter merged into the weights in each format that
    the stand-in can be written in: `hf` and `mistral`."""
    standin = standins.ensure(card)
    folder = cache / f"{card.name}-{key(card)}"
    if folder.exists():
        return folder
    print(f"adapter {card.name}: training what stands in for it, a minute or so", flush=True)
    from local.finetunes import lora  # imports torch, which takes seconds

    cache.mkdir(parents=True, exist_ok=True)
    stale = list(cache.glob(f"{card.name}-*"))
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as draft:
        made = Path(draft) / "whole"
        trained = lora.train(card, standins.tokenizer_path(card), standin)
        lora.write_adapter(card, trained[0], made / "adapter")
        for format in formats(card):
            lora.write_merged(card, *trained, made / format, format)
        if not folder.exists():  # another process may have been quicker
            os.replace(made, folder)
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return folder


def formats(card: Card) -> list[str]:
    """The formats of own weights of this model that can be made here."""
    if card.architecture.vision:
        return ["mistral"]
    return ["hf"] if card.architecture.experts else ["hf", "mistral"]

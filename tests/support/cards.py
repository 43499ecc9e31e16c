"""Sections of cards that several tests add to a real one."""

from typing import Any

from deploy import cards
from deploy.cards import Card
from deploy.sections import Quantized

QUANTIZED = {
    "precision": "awq",
    "source": "https://huggingface.co/someone/a-model-AWQ",
    "repo": "someone/a-model-AWQ",
    "revision": "0" * 40,
    "files": ["config.json", "model.safetensors", "tokenizer.model"],
    "bits": 4,
    "group_size": 128,
}


def with_quantized(name: str, **changes: Any) -> Card:
    """A card that names a repo of quantized weights."""
    repo = Quantized.model_validate({**QUANTIZED, **changes})
    return cards.load(name).model_copy(update={"quantized": [repo]})

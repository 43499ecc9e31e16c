"""Reads parameters.yaml: every name a request may use, and what becomes of it.

Promises: the tables are read once, at import, and never changed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Mapped:
    """An argument of generate with an effect: a key of TAKES, and fields of vLLM's."""

    takes: str
    becomes: str
    note: str = ""

    @property
    def fields(self) -> list[str]:
        return [field for field in self.becomes.split(", ") if field]

    @property
    def beams(self) -> bool:
        """Whether vLLM applies it in beam search."""
        return BEAMS.issuperset(self.fields)


@dataclass(frozen=True)
class Unavailable:
    """An argument vLLM has no counterpart for; the values in `neutral` ask for nothing."""

    neutral: list[Any]
    instead: str


def _read(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8") as file:
        tables: dict[str, Any] = yaml.safe_load(file)
    return tables


_TABLES = _read(Path(__file__).with_name("parameters.yaml"))

MAPPED = {name: Mapped(**row) for name, row in _TABLES["mapped"].items()}
HARMLESS: dict[str, str] = _TABLES["harmless"]
UNAVAILABLE = {name: Unavailable(**row) for name, row in _TABLES["unavailable"].items()}
REMOVED: dict[str, str] = _TABLES["removed"]
VLLM = frozenset(_TABLES["vllm"])
OPENAI = frozenset(_TABLES["openai"])
BEAMS = frozenset(_TABLES["beams"])

CHAT = VLLM | OPENAI
GENERATE = frozenset([*MAPPED, *HARMLESS, *UNAVAILABLE])
OLDER = (GENERATE | {"prompt"}) - CHAT

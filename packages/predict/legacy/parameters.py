"""Every name that a request may use, and its meaning: the tables of parameters.yaml, and how values
are read.

Promises: the tables are read once, at import, and never changed. Each of READERS gives a value in
its type, or None for a value that the argument does not take. JSON has one kind of number, so 512.0
is an integer here; true is not a number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BAN = -100.0  # the lowest bias vLLM takes

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Mapped:
    """An argument of generate with an effect: a key of READERS, and the vLLM fields it becomes."""

    takes: str
    fields: list[str]
    note: str = ""  # what the docs say about it

    @property
    def beams(self) -> bool:
        """Whether vLLM applies it in beam search."""
        return BEAMS.issuperset(self.fields)


@dataclass(frozen=True)
class Unavailable:
    """An argument without a counterpart in vLLM; the values in `neutral` ask for nothing."""

    instead: str
    neutral: list[Any]


_TABLES = yaml.safe_load(Path(__file__).with_name("parameters.yaml").read_text(encoding="utf-8"))

MAPPED = {
    name: Mapped(row["takes"], row.get("becomes", []), row.get("note", ""))
    for name, row in _TABLES["mapped"].items()
}
HARMLESS: dict[str, list[str]] = _TABLES["harmless"]  # reason → names
NO_EFFECT = frozenset().union(*HARMLESS.values())
UNSUPPORTED = {
    name: Unavailable(how, rest) for name, (how, *rest) in _TABLES["unavailable"].items()
}
REMOVED: dict[str, str] = _TABLES["removed"]
VLLM = frozenset(_TABLES["vllm"])
OPENAI = frozenset(_TABLES["openai"])
BEAMS = frozenset(_TABLES["beams"])
REFUSED: dict[str, str] = _TABLES["refused"]
REFUSED_PARTS: dict[str, str] = _TABLES["refused_parts"]
HEADERS = frozenset(name.encode() for name in _TABLES["headers"])

CHAT = VLLM | OPENAI
GENERATE = NO_EFFECT.union(MAPPED, UNSUPPORTED)
LEGACY = (GENERATE | {"prompt"}) - CHAT


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 2**63 else None  # which excludes infinity and NaN


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _at_least(least: int) -> Reader:
    def read(value: Any) -> int | None:
        number = _integer(value)
        return number if number is not None and number >= least else None

    return read


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _bias(pair: Any) -> tuple[int, float] | None:
    ids, value = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
    token, bias = _TOKEN_IDS(ids), _number(value)
    if token is None or len(token) != 1 or bias is None or abs(bias) > abs(BAN):
        return None
    return token[0], bias


def _list(read: Reader, least: int = 0) -> Reader:
    """Reads a list of at least `least` items, each with `read`."""

    def read_all(value: Any) -> list[Any] | None:
        found = [read(item) for item in value] if isinstance(value, list) else [None]
        return found if len(found) >= least and None not in found else None

    return read_all


def _one_or(read_all: Reader) -> Reader:
    return lambda value: read_all(value if isinstance(value, list) else [value])


_TOKEN_IDS = _list(_at_least(0))
_SOME_IDS = _list(_at_least(0), least=1)
_SOME_STRINGS = _list(_string, least=1)

# What an argument takes, as errors and docs show it, and how it is read.
READERS: dict[str, Reader] = {
    "positive integer": _at_least(1),
    "non-negative integer": _at_least(0),
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    'boolean or "never"': lambda value: value if value == "never" else _boolean(value),
    "string or list of strings (not empty)": _one_or(_SOME_STRINGS),
    "list of strings (not empty)": _SOME_STRINGS,
    "token id or list of token ids (not empty)": _one_or(_SOME_IDS),
    "list of token ids": _TOKEN_IDS,
    "list of lists of token ids (not empty)": _list(_SOME_IDS),
    "list of [[token id], bias of -100 to 100]": _list(_bias),
    "object": lambda value: value if isinstance(value, dict) else None,
}

"""What an argument takes: its description, as errors and documents show it, and how it is read.

Promises: a reader gives the value in its type, or None for one that the argument does not take.
JSON has one kind of number, so 512.0 is an integer here; true is not a number.
"""

import json
from collections.abc import Callable
from typing import Any

BAN = -100.0  # the lowest bias vLLM takes


def _integer(value: Any) -> int | None:
    """An integer, also one written as 512.0, within 64 bits."""
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _at_least(least: int) -> Callable[[Any], int | None]:
    def read(value: Any) -> int | None:
        number = _integer(value)
        return number if number is not None and number >= least else None

    return read


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 2**63 else None  # neither is infinity or NaN


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _strings(value: Any) -> list[str] | None:
    values = [value] if isinstance(value, str) else value
    good = isinstance(values, list) and values and all(isinstance(v, str) and v for v in values)
    return values if good else None


def _token_ids(value: Any) -> list[int] | None:
    if not isinstance(value, list):
        return None
    ids = [_at_least(0)(token) for token in value]
    return None if None in ids else [token for token in ids if token is not None]


def _token_id_or_ids(value: Any) -> list[int] | None:
    return _token_ids(value if isinstance(value, list) else [value]) or None


def _lists_of_token_ids(value: Any) -> list[list[int]] | None:
    if not isinstance(value, list):
        return None
    lists = [_token_ids(ids) for ids in value]
    return [ids for ids in lists if ids] if all(lists) else None


def _token_biases(value: Any) -> list[tuple[int, float]] | None:
    if not isinstance(value, list):
        return None
    found = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            return None
        ids, bias = _token_ids(pair[0]), _number(pair[1])
        if ids is None or len(ids) != 1 or bias is None or abs(bias) > abs(BAN):
            return None
        found.append((ids[0], bias))
    return found


TAKES: dict[str, Callable[[Any], Any]] = {
    "positive integer": _at_least(1),
    "non-negative integer": _at_least(0),
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    'boolean or "never"': lambda value: value if value == "never" else _boolean(value),
    "string or list of strings (not empty)": _strings,
    "list of strings (not empty)": lambda value: (
        _strings(value) if isinstance(value, list) and value else None
    ),
    "token id or list of token ids (not empty)": _token_id_or_ids,
    "list of token ids": _token_ids,
    "list of lists of token ids (not empty)": _lists_of_token_ids,
    "list of [[token id], bias of -100 to 100]": _token_biases,
    "object": lambda value: value if isinstance(value, dict) else None,
}


def shown(value: Any) -> str:
    """A value as a message may show it: short."""
    text = json.dumps(value, default=lambda _: "…")
    return text if len(text) <= 60 else f"{text[:57]}…"

"""The values that a flag, a variable of vLLM or a setting of the middleware may have.

Promises: a row of templates/vllm_flags.yaml, vllm_variables.yaml or deploy/limits.py defines them:
its `kind` (integer, number, size, json, object, ports, networks) with `bounds`, or its `choices`; a
`list` takes several, separated by commas; a row with none of these takes any text. Refuses other
values with a `UsageError` that says what is allowed.
"""

import json
import operator
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from deploy.errors import UsageError

Row = dict[str, Any]

BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "above"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "below"),
}

UNITS = {
    letter: base**power
    for base, letters in ((1000, "kmgt"), (1024, "KMGT"))
    for power, letter in enumerate(letters, 1)
}


def check_value(name: str, value: str, row: Row, variable: str) -> None:
    """`UsageError` unless `value` is valid for the flag or environment variable of `row`;
    `variable` is the option it came from."""
    given = [value]
    if row.get("list"):
        given = _words(value)
    if (choices := row.get("choices")) and not set(given) <= set(choices):
        shown = ", ".join(choices[:12])
        raise UsageError(f"{variable}: {name} is one of {shown}, got {value!r}")
    wanted: str | None = None
    match row.get("kind"):
        case "integer" if not re.fullmatch(r"-?\d+", value):
            wanted = "an integer"
        case "number" if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
            wanted = "a number"
        case "size" if not re.fullmatch(r"\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]", value):
            wanted = "an integer, or one such as 16k (of 1000) or 16K (of 1024)"
        case "json" if not _is_json(value):
            wanted = f"JSON, or dotted keys ({name}.key value)"
        case "ports" if not all(map(_is_port, _words(value))):
            wanted = "ports, 1 to 65535, with commas between them"
        case "networks" if not all(map(_is_network, _words(value))):
            wanted = (
                "addresses as 10.1.2.3, 10.1.0.0/16 or [fd12::1]:8123, with commas between them"
            )
        case "object" if not (value.startswith("{") and _is_json(value)):
            wanted = "a JSON object"
    if wanted:
        raise UsageError(f"{variable}: {name} takes {wanted}, got {value!r}")
    if row.get("kind") in ("integer", "number", "size"):
        _check_bounds(name, value, row.get("bounds", {}), variable)


def _check_bounds(name: str, value: str, bounds: dict[str, float], variable: str) -> None:
    found = number(value)
    for bound, (holds, said) in BOUNDS.items():
        if bound in bounds and not holds(found, bounds[bound]):
            raise UsageError(f"{variable}: {name} is {said} {bounds[bound]}, got {value!r}")


def number(value: str) -> float:
    """The number that a flag's value means: 16k is 16000."""
    bare = value.rstrip("".join(UNITS))
    unit: int = UNITS.get(value[len(bare) :], 1)
    return float(bare) * unit


def _words(value: str) -> list[str]:
    return [word.strip() for word in value.split(",") if word.strip()]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 65536


def _is_network(text: str) -> bool:
    """As packages/predict/images/urls.py parses one; deploying lacks the libraries for that."""
    parts = re.fullmatch(r"(?:\[([^]]+)\]|([^:]+))(?::([0-9]{1,5}))?", text)
    if not parts:
        return False
    try:
        ip_network(parts[1] or parts[2])
    except ValueError:
        return False
    return parts[3] is None or _is_port(parts[3])


def _is_json(value: str) -> bool:
    """False if it looks like JSON and is invalid; some flags also take names, such as ngram."""
    try:
        json.loads(value if value.lstrip().startswith(("{", "[")) else "0")
    except ValueError:
        return False
    return True

"""pydantic's complaints about a request → places in the request, with what is there.

Promises: pure functions. A place is written as elsewhere in this package, `tools[0].description`,
without the classes that pydantic tried. Of a union, only complaints about the `type` that was sent
are reported, and each place once. Nothing of the request is shown except the value at the place,
shortened.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from predict.errors import MAX_LENGTH, shortened, shown
from predict.vllm_internals import FIELD_REQUIRED, INPUT_SHOULD_BE, VALIDATION_ERROR

MAX_FAULTS = 3  # named in one message
FIELD = re.compile(r"[a-z_][a-z0-9_]*")  # not a class that pydantic tried
# pydantic's words for what JSON calls an object.
DICTIONARY = re.compile(
    r"a (valid )?dictionary( or (object to extract fields from|an instance of \w+))?"
)
ABSENT = object()


class Fault(NamedTuple):
    place: str
    said: str
    value: Any  # `ABSENT` if nothing is there
    tried: tuple[tuple[str, str], ...]  # places, and the class that pydantic tried for each


def faults(message: str, request: Mapping[str, Any] | None) -> list[Fault]:
    """vLLM's list of validation errors, each place once."""
    found = [
        _fault(match["loc"].removeprefix("body"), str(ast.literal_eval(match["msg"])), request)
        for match in VALIDATION_ERROR.finditer(message)
    ]
    merged: dict[str, Fault] = {}
    for fault in _of_what_was_meant(found):
        before = merged.get(fault.place)
        if before is None:
            merged[fault.place] = fault
        elif fault.said not in before.said:
            said = f"{before.said}, or {fault.said.removeprefix(INPUT_SHOULD_BE)}"
            merged[fault.place] = before._replace(said=said)
    return list(merged.values())


def sentence(found: list[Fault]) -> str:
    most = MAX_LENGTH // min(len(found), MAX_FAULTS) - len("; and more")
    told = "; ".join(_told(fault, most) for fault in found[:MAX_FAULTS])
    return f"{told}; and more" if len(found) > MAX_FAULTS else told


def _told(fault: Fault, most: int) -> str:
    if not fault.place:
        return shortened(fault.said, most)
    place = shortened(fault.place, 100)
    if fault.said == FIELD_REQUIRED:
        return f"'{place}' is missing"
    if fault.value is ABSENT:
        return shortened(f"'{place}': {fault.said}", most)
    if not fault.said.startswith(INPUT_SHOULD_BE):
        return shortened(f"'{place}' is {shown(fault.value)}: {fault.said}", most)
    taken = DICTIONARY.sub("an object", fault.said.removeprefix(INPUT_SHOULD_BE))
    taken = taken.replace("a valid integer", "an integer").replace("a valid ", "a ")
    return shortened(f"'{place}' is {shown(fault.value)}; it takes {taken}", most)


def _fault(loc: str, said: str, request: Mapping[str, Any] | None) -> Fault:
    node: Any = request
    place = ""
    tried = []
    steps = [step for step in loc.split(".") if step]
    for number, step in enumerate(steps):
        if isinstance(node, Mapping) and step in node:
            node, place = node[step], f"{place}.{step}"
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node, place = node[int(step)], f"{place}[{step}]"
        elif request is None and (step.isdigit() or FIELD.fullmatch(step)):
            place = f"{place}[{step}]" if step.isdigit() else f"{place}.{step}"
        elif isinstance(node, Mapping) and FIELD.fullmatch(step):
            node, place = ABSENT, f"{place}.{step}"
        else:
            tried.append((place, step))
        if node is ABSENT and number < len(steps) - 1:
            break
    value = ABSENT if request is None or not place else node
    return Fault(place.removeprefix("."), said, value, tuple(tried))


def _of_what_was_meant(found: list[Fault]) -> Iterator[Fault]:
    """Without complaints about another `type` than the one sent, unless there are no others."""
    other = {
        tried
        for fault in found
        if fault.place.endswith("type") and fault.said.startswith((INPUT_SHOULD_BE, FIELD_REQUIRED))
        for tried in fault.tried
    }
    meant = [fault for fault in found if not other.intersection(fault.tried)]
    yield from meant or found

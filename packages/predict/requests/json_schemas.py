"""JSON schemas without references to their own definitions, and the keywords that hold schemas.

Promises: pure functions; a schema that needs no change is returned as the same object. `inlined`
replaces each reference by its definition, for a schema that becomes part of another; `pointed`
keeps references, in a form that xgrammar follows. Refuses a reference that leads nowhere and, when
inlining, one that leads into itself.
"""

import itertools
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from predict.errors import RequestError, shown

MOST_NODES = 5000  # nodes of a schema, once keywords beside a choice are copied into its branches
MOST_VALUES = 20_000  # searched for references, of all schemas of a request: as many as it may have
VALUES = frozenset(["const", "enum", "default", "examples", "example"])  # these hold no schema
# … and these hold schemas by name
BY_NAME = frozenset(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"])

Schema = dict[str, Any]


@dataclass
class Resolved:
    """What was put in place of the references of a request."""

    values: int = 0


def inlined(schema: Schema, place: str, resolved: Resolved | None = None) -> Schema:
    """The schema with each reference replaced by its definition."""
    if "$ref" not in str(schema):
        return schema
    return _Inlining(schema, place, resolved or Resolved()).of(schema, ())  # type: ignore[no-any-return]


class _Inlining:
    def __init__(self, root: Schema, place: str, resolved: Resolved) -> None:
        self.root = root
        self.place = place
        self.resolved = resolved

    def of(self, node: Any, within: tuple[str, ...]) -> Any:
        if not isinstance(node, (list, dict)):
            return node
        self.resolved.values += len(node)
        if self.resolved.values > MOST_VALUES:
            raise self._error(f"has more than {MOST_VALUES} values once its '$ref' are resolved")
        if isinstance(node, list):
            return [self.of(inner, within) for inner in node]
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference in within:
                raise self._error(
                    f"refers to itself at '{reference[:60]}', which a required or named tool "
                    "cannot; use 'response_format' with this schema instead"
                )
            rest = {name: value for name, value in node.items() if name != "$ref"}
            target = self.of(self._target(reference), (*within, reference))
            if not isinstance(target, dict):
                return target
            return {**target, **self.of(rest, within)}
        found = {}
        for name, value in node.items():
            if name in BY_NAME and isinstance(value, dict):
                if name not in ("$defs", "definitions"):
                    found[name] = {key: self.of(inner, within) for key, inner in value.items()}
            else:
                found[name] = value if name in VALUES else self.of(value, within)
        return found

    def _target(self, reference: str) -> Any:
        try:
            return _target(self.root, reference)[0]
        except LookupError:
            raise _nothing_there(self.place, reference) from None

    def _error(self, said: str) -> RequestError:
        return RequestError(f"'{self.place}' {said}", self.place)


def pointed(schema: Schema, place: str) -> Schema:
    """The schema with references that xgrammar follows. xgrammar knows neither lists nor escapes in
    a path, so the targets of such references are copied into `$defs`."""
    if "$ref" not in str(schema):
        return schema
    definitions = schema.get("$defs")
    moved: dict[str, Any] = dict(definitions) if isinstance(definitions, dict) else {}
    names: dict[int, str] = {}  # of what is copied, by its id: a reference has many spellings
    values = 0

    def of(node: Any) -> Any:
        nonlocal values
        if not isinstance(node, (list, dict)):
            return node
        values += len(node)
        if values > MOST_VALUES:
            said = f"'{place}' has more than {MOST_VALUES} values where its '$ref' lead"
            raise RequestError(f"{said}; put what they lead to into '$defs'", place)
        if isinstance(node, list):
            kept: Any = [of(one) for one in node]
            return node if all(a is b for a, b in zip(kept, node, strict=True)) else kept
        kept = {name: one if name in VALUES else of(one) for name, one in node.items()}
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            kept["$ref"] = to(reference)
        return node if all(kept[name] is node[name] for name in node) else kept

    def to(reference: str) -> str:
        try:
            target, plain = _target(schema, reference)
        except LookupError:
            raise _nothing_there(place, reference) from None
        if plain:
            return reference
        if id(target) not in names:
            names[id(target)] = name = next(
                name for number in itertools.count() if (name := f"moved-{number}") not in moved
            )
            moved[name] = None
            moved[name] = of(target)
        return f"#/$defs/{names[id(target)]}"

    found = of(schema)
    if not names:
        return found  # type: ignore[no-any-return]
    own = found["$defs"] if isinstance(definitions, dict) else {}
    return {**found, "$defs": {**moved, **own}}


def _target(root: Any, reference: str) -> tuple[Any, bool]:
    """Where a reference leads, and whether xgrammar gets there too; `LookupError` if nothing is
    there."""
    node, plain = root, "%" not in reference and "~" not in reference
    for step in unquote(reference).removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            number = int(step) if step.isdecimal() and len(step) < 9 else len(node)
            node, plain = node[number], False
        elif isinstance(node, dict):
            moved = step == "items" and isinstance(node.get("prefixItems"), list)
            node = node["prefixItems" if moved and step not in node else step]
        else:
            raise LookupError(step)
    return node, plain


def _nothing_there(place: str, reference: str) -> RequestError:
    said = f"'{place}' has '$ref': {shown(reference)}, and nothing is there"
    return RequestError(said, place)

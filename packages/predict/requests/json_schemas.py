"""JSON schemas without references to their own definitions, and what holds a schema in them.

Promises: pure functions; a schema that needs nothing is returned as the same object. `inlined` puts
a definition instead of each reference to it, for a schema that becomes part of another. Refuses a
reference that leads nowhere, or into itself.
"""

from typing import Any
from urllib.parse import unquote

from predict.errors import RequestError
from predict.legacy.parameters import shown

MOST_NODES = 5000  # of a schema whose references are gone
VALUES = frozenset(["const", "enum", "default", "examples", "example"])  # which hold no schema
# … and which hold schemas by names of their own
BY_NAME = frozenset(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"])

Schema = dict[str, Any]


def inlined(schema: Schema, place: str) -> Schema:
    """The schema without references to its own definitions."""
    if "$ref" not in str(schema):
        return schema
    return _Inlining(schema, place).of(schema, ())  # type: ignore[no-any-return]


class _Inlining:
    def __init__(self, root: Schema, place: str) -> None:
        self.root = root
        self.place = place
        self.nodes = 0

    def of(self, node: Any, within: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [self.of(inner, within) for inner in node]
        if not isinstance(node, dict):
            return node
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise self._error(f"has more than {MOST_NODES} parts once its '$ref' are resolved")
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
        node: Any = self.root
        for step in unquote(reference).removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and step.isdecimal() and int(step[:9]) < len(node):
                node = node[int(step)]
            elif isinstance(node, dict) and step in node:
                node = node[step]
            else:
                raise self._error(f"has '$ref': {shown(reference)}, and nothing is there")
        return node

    def _error(self, said: str) -> RequestError:
        return RequestError(f"'{self.place}' {said}", self.place)

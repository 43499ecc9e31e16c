"""JSON schemas as xgrammar compiles them.

Promises: pure functions; a schema that needs nothing is returned as the same object. `inlined` puts
a definition instead of each reference to it, for a schema that becomes part of another.
`loosened` takes out what xgrammar cannot follow and only narrows a value (a `format`, a length
beside a pattern, `multipleOf`, `uniqueItems` …), as `notes` say: the answer has the schema's shape,
and its reader checks the rest, as with OpenAI's strict mode. Refuses, naming path and keyword, what
cannot be left out without changing the shape, and a reference that leads into itself.
"""

from typing import Any
from urllib.parse import unquote

from predict.errors import RequestError
from predict.legacy.parameters import shown
from predict.requests.conversations.notes import Notes

MOST_NODES = 5000  # of a schema whose references are gone
# vllm/v1/structured_output/backend_xgrammar.py, has_xgrammar_unsupported_json_features
FORMATS = frozenset(
    [
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    ]
)
LENGTHS = ("minLength", "maxLength")
OF_ARRAYS = ("uniqueItems", "contains", "minContains", "maxContains")
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


def loosened(schema: Any, place: str, notes: Notes) -> Any:
    """The schema without what xgrammar cannot follow."""
    if isinstance(schema, list):
        items = [loosened(inner, f"{place}[{i}]", notes) for i, inner in enumerate(schema)]
        return schema if all(a is b for a, b in zip(items, schema, strict=True)) else items
    if not isinstance(schema, dict):
        return schema
    gone = _unsupported(schema, place)
    notes.add(*(f"{place}.{name}" for name in gone))
    found = {}
    for name, value in schema.items():
        where = f"{place}.{name}"
        if name in BY_NAME and isinstance(value, dict):
            inner = {key: loosened(one, f"{where}.{key}", notes) for key, one in value.items()}
            found[name] = value if all(inner[key] is value[key] for key in value) else inner
        elif name not in gone:
            found[name] = value if name in VALUES else loosened(value, where, notes)
    if not gone and all(found[name] is value for name, value in schema.items()):
        return schema
    return found


def _unsupported(schema: Schema, place: str) -> list[str]:
    """The keywords of a schema that only narrow a value and are not followed."""
    kind = schema.get("type")
    types = (
        {kind} if isinstance(kind, str) else set(map(str, kind)) if isinstance(kind, list) else ()
    )
    gone = []
    if "multipleOf" in schema and {"integer", "number"} & set(types):
        gone.append("multipleOf")
    if "array" in types:
        gone += [name for name in OF_ARRAYS if name in schema]
    if "string" in types:
        known = schema.get("format") in FORMATS if isinstance(schema.get("format"), str) else False
        if "format" in schema and not known:
            gone.append("format")
        if "pattern" in schema or known:
            gone += [name for name in LENGTHS if name in schema]
    if "object" in types:
        _refuse_combinations(schema, place)
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) > 1:
        raise _refused(place, "allOf", "has several schemas; merge them into one")
    return gone


def _refuse_combinations(schema: Schema, place: str) -> None:
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict) and patterns and ("properties" in schema or len(patterns) > 1):
        other = "'properties'" if "properties" in schema else "a second pattern"
        raise _refused(place, "patternProperties", f"stands beside {other}; leave one of them out")
    names = schema.get("propertyNames")
    if isinstance(names, dict):
        for other in ("patternProperties", "properties"):
            if other in schema:
                raise _refused(place, "propertyNames", f"stands beside '{other}'; leave it out")
        bounded = any(name in names for name in LENGTHS)
        if bounded and ("pattern" in names or "format" in names):
            raise _refused(place, "propertyNames", "has a length beside a pattern; leave one out")
        if schema.get("unevaluatedProperties", True) is not True:
            raise _refused(
                place, "propertyNames", "stands beside 'unevaluatedProperties'; leave it out"
            )


def _refused(place: str, keyword: str, said: str) -> RequestError:
    where = f"{place}.{keyword}"
    where = where if len(where) <= 150 else f"…{where[-149:]}"
    return RequestError(f"'{where}' cannot be followed while the answer is made: it {said}", where)

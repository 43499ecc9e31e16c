"""JSON schemas in a form that xgrammar follows.

Promises: pure functions; a schema that needs no change is returned as the same object. xgrammar
reads nothing beside `anyOf`, `oneOf` or a single `allOf`, so keywords beside these are moved into
each branch; a keyword without `type` gets the type it applies to. `loosened` removes what xgrammar
cannot follow and only narrows a value (an unknown `format`, `not`, `multipleOf` …), and says so in
`notes`: the answer has the schema's shape, and the client checks the rest, as with OpenAI's strict
mode. Refuses, naming path and keyword, what cannot be removed without changing the shape.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from predict.errors import RequestError, shown
from predict.requests.conversations.notes import Notes
from predict.requests.json_schemas import BY_NAME, MOST_NODES, VALUES, Schema

# vllm/v1/structured_output/backend_xgrammar.py, has_xgrammar_unsupported_json_features
FORMATS = frozenset(
    [
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    ]
)
SHOWN = 150  # characters of a place in a schema
LENGTHS = ("minLength", "maxLength")
OF_ARRAYS = ("uniqueItems", "contains", "minContains", "maxContains")
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
# The keywords of each type, …
ABOUT = {
    "string": (*LENGTHS, "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": (*OF_ARRAYS, "minItems", "maxItems", "items", "prefixItems", "unevaluatedItems"),
    "object": (
        *("required", "minProperties", "maxProperties", "patternProperties", "propertyNames"),
        *("properties", "additionalProperties", "unevaluatedProperties"),
    ),
}
# … those by which xgrammar 0.2.8 recognizes a schema without `type`, those of which it reads only
# the first, and those that it never reads; tests/unit/with_vllm/test_requests_loosening.py tries
# each.
TELLING = {
    "object": ("properties", "additionalProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "unevaluatedItems"),
}
HEADS = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
CHOICES = ("anyOf", "oneOf", "allOf")
NEVER = ("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies")
KEYWORDS = frozenset([*HEADS, *(name for names in ABOUT.values() for name in names)])
SHAPES = frozenset(["items", "prefixItems", "properties", "patternProperties", *CHOICES])
SIMPLE = frozenset(["type", "title", "description", "default"])
ANNOTATIONS = ("discriminator", "xml", "externalDocs")  # OpenAPI's objects, not schemas
FOREIGN = ("$dynamicRef", "$recursiveRef")


class Beside(NamedTuple):
    """The keywords beside the choice that a schema is part of, as xgrammar follows them, and where
    they stand."""

    schema: Schema
    places: Mapping[str, str]


ALONE = Beside({}, {})


def loosened(schema: Any, place: str, notes: Notes) -> Any:
    """The schema without what xgrammar cannot follow."""
    loosening = _Loosening(notes)
    found = loosening.of(schema, place, ALONE)
    if loosening.spread:
        nodes = [found]
        for node in nodes:  # grows during the loop
            if len(nodes) > MOST_NODES:
                said = f"has more than {MOST_NODES} parts with what stands beside its choices"
                raise RequestError(f"'{place}' {said}; put less beside 'anyOf'", place)
            if isinstance(node, (dict, list)):
                nodes += node.values() if isinstance(node, dict) else node
    return found


class _Loosening:
    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.spread = False  # whether a keyword is in several places now

    def of(self, schema: Any, place: str, beside: Beside) -> Any:
        if isinstance(schema, list):
            items = [self.of(inner, f"{place}[{i}]", ALONE) for i, inner in enumerate(schema)]
            return schema if all(a is b for a, b in zip(items, schema, strict=True)) else items
        if schema is True and beside.schema:
            return self._typed({}, place, beside)
        if not isinstance(schema, dict):
            return schema
        if SIMPLE.issuperset(schema) and schema.get("type") in TYPES and not beside.schema:
            return schema  # like most
        sent, schema = schema, _plain(schema)
        _check(schema, place)
        head = next((name for name in HEADS if name in schema), None)
        if head in CHOICES and isinstance(schema[head], list):
            found = self._choice(schema, head, place, beside)
        elif head is not None:
            found = self._headed(schema, head, place, beside)
        else:
            found = self._typed(schema, place, beside)
        return sent if _same(found, sent) else found

    def _inner(self, schema: Schema, place: str, gone: list[str]) -> Schema:
        """The schema without the keywords in `gone`, its inner schemas loosened."""
        found = {}
        for name, value in schema.items():
            where = f"{place}.{name}"
            if name in gone:
                continue
            if name in BY_NAME and isinstance(value, dict):
                inner = {  # a long name would be copied for each schema below it
                    key: self.of(one, f"{where}.{key[:SHOWN]}", ALONE) for key, one in value.items()
                }
                found[name] = value if _same(inner, value) else inner
            else:
                data = name in VALUES or name in ANNOTATIONS or name.startswith("x-")
                found[name] = value if data else self.of(value, where, ALONE)
        return found

    def _without(self, schema: Schema, place: str, gone: list[str]) -> Schema:
        self.notes.add(*(f"{place}.{name}" for name in gone))
        return self._inner(schema, place, gone)

    def _headed(self, schema: Schema, head: str, place: str, beside: Beside) -> Schema:
        """A reference or values, beside which xgrammar follows nothing."""
        others = [name for name in schema if name in KEYWORDS and name != head]
        if head == "$ref":
            places = [f"{place}.{name}" for name in others if name in SHAPES]
            places += [at for name, at in beside.places.items() if name in SHAPES]
            if places:
                said = "stands beside a '$ref'; put both into one schema"
                raise _refused(places[0], said)
        self.notes.add(*beside.places.values())
        return self._without(schema, place, [*_never(schema), *others])

    def _choice(self, schema: Schema, head: str, place: str, beside: Beside) -> Schema:
        branches = schema[head]
        others = [name for name in schema if name in KEYWORDS and name != head]
        for name in others:
            if name in HEADS:
                said = f"stands beside '{head}'; put it into each schema of that"
                raise _refused(f"{place}.{name}", said)
        if head == "allOf" and len(branches) > 1:
            raise _refused(f"{place}.{head}", "has several schemas; merge them into one")
        self.notes.add(*(f"{place}.{name}" for name in _never(schema)))
        whole = self._inner(schema, place, [*_never(schema), head])
        around = {name: whole[name] for name in (*others, "type") if name in whole}
        places = {name: f"{place}.{name}" for name in others}
        if beside.schema:
            around = self._merged(around, Beside(beside.schema, beside.places))
            places = {**beside.places, **places}
        within = Beside(around, places)
        kept = [self.of(one, f"{place}.{head}[{i}]", within) for i, one in enumerate(branches)]
        changed = not all(a is b for a, b in zip(kept, branches, strict=True))
        self.spread |= bool(places) and len(branches) > 1
        gone = [*_never(schema), *others]
        rest = {name: value for name, value in whole.items() if name not in others}
        return {
            name: (kept if changed else branches) if name == head else rest[name]
            for name in schema
            if name not in gone
        }

    def _typed(self, schema: Schema, place: str, beside: Beside) -> Schema:
        own = self._without(schema, place, _never(schema))
        found = self._merged(own, beside) if beside.schema else own
        if "type" not in found and (types := _implied(found)):
            found = {"type": types[0] if len(types) == 1 else types, **found}
        if "minItems" in found and not any(name in found for name in TELLING["array"]):
            found = {**found, "items": True}  # xgrammar allows only items that a schema describes
        gone = _unsupported(found, place)
        for name in gone:
            self.notes.add(f"{place}.{name}" if name in schema else beside.places[name])
        return {name: value for name, value in found.items() if name not in gone}

    def _merged(self, own: Schema, beside: Beside) -> Schema:
        """Both schemas in one; where they differ, the inner one counts."""
        found = {**beside.schema, **own}
        for name in beside.schema.keys() & own.keys():
            outer, inner = beside.schema[name], own[name]
            at = beside.places.get(name, "")
            if name == "properties" and isinstance(outer, dict) and isinstance(inner, dict):
                found[name] = {**outer, **inner}
                both = outer.keys() & inner.keys()
                self.notes.add(*(f"{at}.{key}" for key in outer if key in both))
            elif name == "required" and isinstance(outer, list) and isinstance(inner, list):
                found[name] = [*outer, *(one for one in inner if one not in outer)]
            elif outer != inner and name in SHAPES:
                said = "stands beside a choice that has it too; leave one of them out"
                raise _refused(at, said)
            elif outer != inner and at:
                self.notes.add(at)
        return found


def _same(found: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
    return found.keys() == sent.keys() and all(found[name] is sent[name] for name in sent)


def _plain(schema: Schema) -> Schema:
    """The schema with draft 7's tuples in the terms of 2020-12, and without an empty `allOf`."""
    if schema.get("allOf") == []:
        schema = {name: value for name, value in schema.items() if name != "allOf"}
    if isinstance(schema.get("items"), list):
        schema = {("prefixItems" if k == "items" else k): v for k, v in schema.items()}
        if "additionalItems" in schema:
            schema = {("items" if k == "additionalItems" else k): v for k, v in schema.items()}
    return schema


def _check(schema: Schema, place: str) -> None:
    for name in FOREIGN:
        if name in schema:
            raise _refused(f"{place}.{name}", "is no plain reference; use '$ref'")
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in TYPES:
            where = f"{place}.type"
            where = where if len(where) <= 100 else f"…{where[-99:]}"
            said = f"'{where}' is {shown(kind)}; it takes {', '.join(TYPES)}"
            raise RequestError(said, where)


def _never(schema: Schema) -> list[str]:
    return [name for name in NEVER if name in schema]


def _implied(schema: Schema) -> list[str]:
    """The types that a schema's keywords apply to; none if xgrammar recognizes the type itself."""
    if any(name in schema for names in TELLING.values() for name in names):
        return []
    return [kind for kind, names in ABOUT.items() if any(name in schema for name in names)]


def _unsupported(schema: Schema, place: str) -> list[str]:
    """The keywords of a schema that xgrammar does not follow and that only narrow a value."""
    kind = schema.get("type")
    types = set(map(str, kind)) if isinstance(kind, list) else {str(kind)}
    if kind is None:
        types = {one for one, names in TELLING.items() if any(name in schema for name in names)}
    gone = []
    if "multipleOf" in schema and {"integer", "number"} & types:
        gone.append("multipleOf")
    if "array" in types:
        gone += [name for name in OF_ARRAYS if name in schema]
    if "string" in types:
        known = schema.get("format") in FORMATS if isinstance(schema.get("format"), str) else False
        if "format" in schema and not known:
            gone.append("format")
        if "pattern" in schema and known:
            gone.append("pattern")  # xgrammar reads only the format
        if "pattern" in schema or known:
            gone += [name for name in LENGTHS if name in schema]
    if "object" in types:
        _refuse_combinations(schema, place)
        named = ("properties", "patternProperties", "additionalProperties", "propertyNames")
        if "required" in schema and not any(name in schema for name in named):
            gone.append("required")
        names = schema.get("propertyNames")
        if isinstance(names, dict) and any(name in names for name in (*CHOICES, *NEVER)):
            gone.append("propertyNames")
    return gone


def _refuse_combinations(schema: Schema, place: str) -> None:
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict) and patterns and ("properties" in schema or len(patterns) > 1):
        other = "'properties'" if "properties" in schema else "a second pattern"
        raise _refused(
            f"{place}.patternProperties", f"stands beside {other}; leave one of them out"
        )
    names = schema.get("propertyNames")
    if isinstance(names, dict):
        for other in ("patternProperties", "properties"):
            if other in schema:
                raise _refused(f"{place}.propertyNames", f"stands beside '{other}'; leave it out")
        bounded = any(name in names for name in LENGTHS)
        if bounded and ("pattern" in names or "format" in names):
            raise _refused(f"{place}.propertyNames", "has a length beside a pattern; leave one out")
        if schema.get("unevaluatedProperties", True) is not True:
            raise _refused(
                f"{place}.propertyNames", "stands beside 'unevaluatedProperties'; leave it out"
            )


def _refused(where: str, said: str) -> RequestError:
    where = where if len(where) <= SHOWN else f"…{where[1 - SHOWN :]}"
    return RequestError(f"'{where}' cannot be followed while the answer is made: it {said}", where)

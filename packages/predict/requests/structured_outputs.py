"""Constraints on the output as a request writes them: JSON schemas, regular expressions, grammars.

Promises: pure functions. The values of `default`, `enum` and the like are data, not schemas. The
cost of a constraint is measured, not estimated: constraints/. Tools that are only offered constrain
nothing: only their bytes and levels are limited. Refuses what needs no compiler to see, with a
`RequestError` that names the place, its value and what is allowed: too many bytes or levels, an
empty constraint, a `$ref` that leads out of its schema.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from predict.errors import RequestError, shown
from predict.requests.json_schemas import BY_NAME, VALUES
from predict.requests.work import prompts_of
from predict.settings import RequestLimits

# Fields that may hold a schema. The tools' schemas count together, as in the engine.
SCHEMAS = ("response_format", "structured_outputs", "text", "output_config", "tools")
# Keywords of JSON Schema whose number must not be negative.
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
CONSTRAINTS = ("json", "regex", "grammar", "structural_tag")
DATA = VALUES | {"input_examples"}  # which Anthropic's tools have
MOST_OF_PLACE = 150  # characters
ONLY_OFFERED = (None, "auto", "none")


def constraint(body: Mapping[str, Any]) -> str | None:
    """The field that constrains a request's output to a schema, if there is one."""
    return next((name for name in SCHEMAS if body.get(name) is not None), None)


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """The request, with a schema that was sent as text parsed; `RequestError` if it is not JSON."""
    outputs = body.get("structured_outputs")
    if not isinstance(outputs, dict):
        return body
    text = outputs.get("json")
    if not isinstance(text, str) or not text:
        return body
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        name = "structured_outputs"
        raise RequestError(f"'{name}.json' is not JSON: {error}", name) from error
    return {**body, "structured_outputs": {**outputs, "json": schema}}


def check(body: Mapping[str, Any], limits: RequestLimits) -> None:
    """Refuses constraints of an opened request that are too large or that nothing could follow."""
    for name in SCHEMAS:
        value = body.get(name)
        if value is None:
            continue
        size, prompts = len(msgspec.json.encode(value)), prompts_of(body)
        _most(name, size, limits["schema_bytes"], "bytes")
        if prompts > 1:  # vLLM reads it again for each
            most = limits["repeated_bytes"]
            _most(name, size * prompts, most, f"bytes for its {prompts} prompts together")
        if name == "structured_outputs":
            if not isinstance(value, dict):
                raise _error(name, f"is {shown(value)}; it takes an object, such as {{'regex': …}}")
            for kind in CONSTRAINTS:
                if value.get(kind) == "":
                    raise _error(name, f"has an empty '{kind}'")
        _check_depth(name, value, limits)
        if name != "tools" or are_called(body):
            _check_schema(name, value)


def are_called(body: Mapping[str, Any]) -> bool:
    """Whether the answer must be a tool call."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice.get("type")
    return choice not in ONLY_OFFERED


class _Node(NamedTuple):
    """A part of a constraint, and where it stands."""

    value: Any
    kind: str  # "schema", "names" of schemas, or "data", which holds no schema
    key: Any = None
    parent: Any = None

    @property
    def place(self) -> str:
        if self.parent is None:
            return str(self.key)
        step = f"[{self.key}]" if isinstance(self.key, int) else f".{self.key[:60]}"
        return self.parent.place + step  # type: ignore[no-any-return]


def _check_depth(name: str, value: Any, limits: RequestLimits) -> None:
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, (dict, list))]:
        depth += 1
        _most(name, depth, limits["schema_depth"], "levels of lists and objects")
        inner = (node.values() if isinstance(node, dict) else node for node in level)
        level = [one for some in inner for one in some]


def _check_schema(name: str, value: Any) -> None:
    nodes = [_Node(value, "schema", name)] if isinstance(value, (dict, list)) else []
    for node in nodes:  # grows during the loop, level by level
        if node.kind == "schema" and isinstance(node.value, dict):
            _check_object(node)
        nodes += _inner(node)


def _inner(node: _Node) -> Iterator[_Node]:
    """The lists and objects directly in this one."""
    if isinstance(node.value, list):
        for position, one in enumerate(node.value):
            if isinstance(one, (dict, list)):
                yield _Node(one, node.kind, position, node)
        return
    for name, one in node.value.items():
        if not isinstance(one, (dict, list)):
            continue
        kind = node.kind
        if kind == "names":
            kind = "schema"
        elif kind == "schema":
            kind = "data" if name in DATA else "names" if name in BY_NAME else "schema"
        yield _Node(one, kind, name, node)


def _check_object(node: _Node) -> None:
    reference = node.value.get("$ref")
    if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
        where = _Node(reference, "data", "$ref", node)
        raise _wrong(where, "which leads out of the schema; use '#/…'")
    for keyword in COUNTS:
        number = node.value.get(keyword)
        if isinstance(number, (int, float)) and number < 0:
            raise _wrong(_Node(number, "data", keyword, node), "below 0")


def _wrong(node: _Node, said: str) -> RequestError:
    place = node.place
    place = place if len(place) <= MOST_OF_PLACE else f"…{place[1 - MOST_OF_PLACE :]}"
    return RequestError(f"'{place}' is {shown(node.value)}, {said}", place)


def _most(name: str, has: int, limit: int | None, what: str) -> None:
    if limit is not None and has > limit:
        raise _error(name, f"has {has} {what}; at most {limit} are allowed")


def _error(name: str, said: str) -> RequestError:
    return RequestError(f"'{name}' {said}", name)

"""Constraints on the output, as a request writes them: JSON schemas, regular expressions, grammars.

Promises: pure functions; what can be told from size alone is refused here, with a `RequestError`
that names the field, what it has and what is allowed: too many bytes or levels, an empty
constraint, a `$ref` that leads out of its schema. What a constraint costs is measured, not judged:
constraints/. Tools that are only offered constrain nothing: their bytes and levels count alone.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from predict.errors import RequestError
from predict.legacy.parameters import shown
from predict.settings import RequestLimits

# Where a schema stands. Tools' are taken together, as the engine does.
SCHEMAS = ("response_format", "structured_outputs", "text", "output_config", "tools")
# Keywords of JSON schema whose number is not below 0.
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
CONSTRAINTS = ("json", "regex", "grammar", "structural_tag")
ONLY_OFFERED = (None, "auto", "none")


def constraint(body: Mapping[str, Any]) -> str | None:
    """The name by which a request holds its output to a schema, if it does."""
    return next((name for name in SCHEMAS if body.get(name) is not None), None)


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """The request, with a schema that it has as a text read."""
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
    """Refuses what of an opened request is too large, or nothing that could be followed."""
    for name in SCHEMAS:
        value = body.get(name)
        if value is None:
            continue
        _most(name, len(msgspec.json.encode(value)), limits["schema_bytes"], "bytes")
        if name == "structured_outputs":
            if not isinstance(value, dict):
                raise _error(name, f"is {shown(value)}; it takes an object, such as {{'regex': …}}")
            for kind in CONSTRAINTS:
                if value.get(kind) == "":
                    raise _error(name, f"has an empty '{kind}'")
        _check_schema(name, value, limits, name != "tools" or are_called(body))


def are_called(body: Mapping[str, Any]) -> bool:
    """Whether the answer must be a call of a tool."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        choice = choice.get("type")
    return choice not in ONLY_OFFERED


def _check_schema(name: str, value: Any, limits: RequestLimits, constrains: bool) -> None:
    nodes = [(value, 1)]
    for node, depth in nodes:  # which grows meanwhile, level by level
        if not isinstance(node, (dict, list)):
            continue
        _most(name, depth, limits["schema_depth"], "levels of lists and objects")
        if constrains and isinstance(node, dict):
            _check_object(name, node)
        inner = node.values() if isinstance(node, dict) else node
        nodes += [(one, depth + 1) for one in inner]


def _check_object(name: str, node: Mapping[str, Any]) -> None:
    reference = node.get("$ref")
    if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
        raise _error(name, "has a '$ref' that leads out of it; use '#/…'")
    for keyword in COUNTS:
        number = node.get(keyword)
        if isinstance(number, (int, float)) and number < 0:
            raise _error(name, f"has '{keyword}': {shown(number)}, below 0")


def _most(name: str, has: int, limit: int | None, what: str) -> None:
    if limit is not None and has > limit:
        raise _error(name, f"has {has} {what}; at most {limit} are allowed")


def _error(name: str, said: str) -> RequestError:
    return RequestError(f"'{name}' {said}", name)

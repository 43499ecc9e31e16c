"""Finds faults in a tool's schema by the rules of mistral-common, which does not say where.

mistral-common checks each schema against JSON Schema draft 7, in Python, and its patterns as
Python's regular expressions. While a tool is only offered, its schema is just words in the prompt,
and what JavaScript clients send is valid there: `\\p{…}` in a pattern, for one.

Promises: `faults` finds errors of structure; patterns and signs of numbers are left to the model. A
valid schema is checked in C: 64 KiB in 1 ms, where jsonschema takes 1.4 s. Of any other, jsonschema
sees only the faulty part. A mistral-common without this function is left unchanged.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

TYPES = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
INNER = "Schema | bool"

# What draft 7's own schema allows for each keyword. Where this allows less (not 1.0 for an integer,
# say), jsonschema has the last word.
KEYWORDS: dict[str, Any] = {
    **dict.fromkeys(("$id", "$schema", "$ref", "$comment", "title", "description"), str),
    **dict.fromkeys(("pattern", "format", "contentMediaType", "contentEncoding"), str),
    **dict.fromkeys(("readOnly", "uniqueItems"), bool),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), int | float),
    "multipleOf": Annotated[int, msgspec.Meta(gt=0)] | Annotated[float, msgspec.Meta(gt=0)],
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems"), int),
    **dict.fromkeys(("maxProperties", "minProperties"), int),
    **dict.fromkeys(("examples", "enum"), list[Any]),
    "required": list[str],
    "type": TYPES | Annotated[list[TYPES], msgspec.Meta(min_length=1)],
}
# … and for keywords that hold schemas: one each …
ONE = (
    *("additionalItems", "additionalProperties", "contains", "propertyNames"),
    *("not", "if", "then", "else", "items"),
)
# … by name, or in a list.
NAMED = ("definitions", "properties", "patternProperties", "dependencies")
LISTED = ("allOf", "anyOf", "oneOf", "items")
MANY = f"Annotated[list[{INNER}], msgspec.Meta(min_length=1)]"
KEYWORDS |= dict.fromkeys(ONE, INNER) | dict.fromkeys(LISTED, MANY)
KEYWORDS |= dict.fromkeys(NAMED, f"dict[str, {INNER}]")
KEYWORDS |= {"items": f"{INNER} | {MANY}", "dependencies": f"dict[str, {INNER} | list[str]]"}

FIELDS = {f"_{position}": keyword for position, keyword in enumerate(KEYWORDS)}
Schema = msgspec.defstruct(
    "Schema",
    [(name, KEYWORDS[keyword], None) for name, keyword in FIELDS.items()],
    module=__name__,
    rename=FIELDS,
    gc=False,
)


def faults(schema: Any) -> Iterator[Any]:
    """The faults of a schema, as jsonschema's errors."""
    if not _fits(schema):
        yield from _faults(schema, ())


def _fits(schema: Any) -> bool:
    try:
        msgspec.convert(schema, Schema | bool)
    except msgspec.ValidationError:
        return False
    return True


def _faults(value: Any, place: tuple[str | int, ...]) -> Iterator[Any]:
    """The faults of the schemas in a value, then its own."""
    own = value
    if isinstance(value, dict):
        own = {}
        for keyword, held in value.items():
            inner = _schemas(keyword, held)
            own[keyword] = held
            if isinstance(held, dict) and keyword in (*ONE, *NAMED):
                own[keyword] = {}
            elif inner:
                own[keyword] = [True]
            for steps, schema in inner.items():
                if not _fits(schema):
                    yield from _faults(schema, (*place, keyword, *steps))
    for error in _rules().iter_errors(own):
        if error.validator != "minimum":
            error.relative_path.extendleft(reversed(place))
            yield error


def _schemas(keyword: str, held: Any) -> Mapping[tuple[str | int, ...], Any]:
    """The schemas that a keyword holds, by their path in it."""
    if keyword in ONE and isinstance(held, dict):
        return {(): held}
    if keyword in LISTED and isinstance(held, list):
        return {(position,): schema for position, schema in enumerate(held)}
    if keyword in NAMED and isinstance(held, dict):
        names = keyword == "dependencies"  # whose entries may be lists of names
        inner = held.items()
        return {(name,): schema for name, schema in inner if not (names and _are_names(schema))}
    return {}


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {str}


@functools.cache
def _rules() -> Any:
    """The rules for a schema of draft 7."""
    from jsonschema import Draft7Validator  # required by vLLM; slow to import
    from jsonschema.validators import extend

    # duplicates in a list harm nobody, and finding them takes time quadratic in its length
    once = extend(Draft7Validator, {"uniqueItems": lambda *_: ()})  # type: ignore[no-untyped-call]
    return once(once.META_SCHEMA)


def validate(value: dict[str, Any]) -> None:
    """`ValueError` for the first fault."""
    for error in faults(value):
        raise ValueError(error.message)


def install() -> None:
    from mistral_common.protocol.instruct import validator

    name = "validate_json_schema_by_draft7"
    if hasattr(validator, name):
        setattr(validator, name, validate)

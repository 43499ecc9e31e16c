"""What is wrong with a tool's schema, by the rules of mistral-common, which does not say where.

mistral-common tries each schema as JSON schema of draft 7, and its patterns as Python's regular
expressions. While a tool is only offered, its schema is no more than words in the prompt, and what
JavaScript's clients send is valid there: `\\p{…}` in a pattern, for one.

Promises: `faults` are errors of structure; patterns and signs of numbers are left to the model.
What was found good is not looked at again. A mistral-common without such a function is left as it
is.
"""

import functools
import json
from collections.abc import Iterator
from typing import Any


@functools.cache
def _rules() -> Any:
    """Those of a schema of draft 7."""
    from jsonschema import Draft7Validator  # of vLLM's own requirements; takes a moment to import
    from jsonschema.validators import extend

    # what a list has twice harms nobody, and to look for it takes the square of its length
    once = extend(Draft7Validator, {"uniqueItems": lambda *_: ()})  # type: ignore[no-untyped-call]
    return once(once.META_SCHEMA)


def faults(schema: Any) -> Iterator[Any]:
    """`jsonschema`'s errors."""
    for error in _rules().iter_errors(schema):
        if error.validator != "minimum":
            yield error


def validate(value: dict[str, Any]) -> None:
    """Raises a ValueError. Tools come with each request of a conversation; once is enough."""
    _validate(json.dumps(value))


@functools.lru_cache(maxsize=256)
def _validate(schema: str) -> None:
    for error in faults(json.loads(schema)):  # 1.5 ms for a kB
        raise ValueError(error.message)


def install() -> None:
    from mistral_common.protocol.instruct import validator

    name = "validate_json_schema_by_draft7"
    if hasattr(validator, name):
        setattr(validator, name, validate)

"""What vLLM and mistral-common say of a request, in the request's own words.

Promises: pure functions; `explained` gives a sentence with place, value and what is taken for a
message that names none, and None for any other.
"""

from typing import Any

from predict.legacy.parameters import shown

SCHEMA = "Invalid tool schema"  # mistral-common's, which does not say of which tool


def explained(message: str, tools: Any) -> tuple[str, str] | None:
    """The sentence and the place, for what was said of a request with these tools."""
    if SCHEMA not in message or not isinstance(tools, list):
        return None
    from jsonschema import Draft7Validator  # of vLLM's own requirements; takes a moment to import
    from jsonschema.exceptions import SchemaError

    for position, tool in enumerate(tools):
        place, schema = _schema(tool, f"tools[{position}]")
        try:
            Draft7Validator.check_schema(schema)
        except SchemaError as error:
            for step in error.absolute_path:
                place += f"[{step}]" if isinstance(step, int) else f".{step}"
            place = place if len(place) <= 150 else f"…{place[-149:]}"
            return f"'{place}' is {shown(error.instance)}; {_wanted(error)} (JSON schema)", place
    return None


def _schema(tool: Any, place: str) -> tuple[str, Any]:
    inner = tool.get("function") if isinstance(tool, dict) else None
    if isinstance(inner, dict):
        return f"{place}.function.parameters", inner.get("parameters") or {}
    for name in ("input_schema", "parameters"):
        if isinstance(tool, dict) and isinstance(tool.get(name), dict):
            return f"{place}.{name}", tool[name]
    return place, {}


def _wanted(error: Any) -> str:
    if error.validator == "type":
        kinds = error.validator_value
        return f"it takes a {' or '.join(kinds) if isinstance(kinds, list) else kinds}"
    if error.validator == "anyOf":
        return "it takes something else"
    if error.validator == "enum":
        return f"it takes one of {shown(error.validator_value)}"
    return str(error.message)[:80]

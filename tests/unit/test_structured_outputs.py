"""What output may be held to."""

import json
from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests import structured_outputs
from predict.settings import DEFAULT_LIMITS, NO_LIMITS, RequestLimits

SLOW = "([a-z]*[a-m]*)*z"


def refused(body: dict[str, Any], limits: RequestLimits = DEFAULT_LIMITS) -> RequestError:
    with pytest.raises(RequestError) as error:
        structured_outputs.check(structured_outputs.opened(body), limits)
    assert error.value.param == next(iter(body))
    assert error.value.status == 400
    return error.value


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"structured_outputs": {"regex": ""}}, "empty"),
        ({"structured_outputs": {"json": "{"}}, "no JSON"),
        ({"structured_outputs": {"json": '{"$ref": "http://a"}'}}, "$ref"),
        ({"tools": [{"function": {"parameters": {"$ref": "file:///a"}}}]}, "$ref"),
        ({"response_format": {"json_schema": {"schema": {"minLength": -1}}}}, "minLength"),
    ],
)
def test_what_the_engine_would_choke_on_is_refused(schema: dict[str, Any], said: str) -> None:
    assert said in str(refused(schema, NO_LIMITS))


def test_a_schema_s_references_within_it_are_allowed() -> None:
    schema = {"$defs": {"a": {"$ref": "#"}}, "items": {"$ref": "#/$defs/a"}, "minItems": True}
    structured_outputs.check(
        structured_outputs.opened({"structured_outputs": {"json": json.dumps(schema)}}),
        {**NO_LIMITS, "schema_depth": 9},
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": SLOW},
        {"items": {"anyOf": [{}, {"pattern": SLOW}]}},
        {"patternProperties": {SLOW: {}}},
        {"propertyNames": {"pattern": SLOW}},
        {"$defs": {"a": {"pattern": SLOW}}, "$ref": "#/$defs/a"},
    ],
)
def test_expressions_are_judged_wherever_they_stand(schema: dict[str, Any]) -> None:
    for body in (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
        {"structured_outputs": {"json": schema}},
        {"structured_outputs": {"json": json.dumps(schema)}},
        {"text": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"tools": [{"type": "function", "function": {"parameters": schema}}]},
        {"tools": [{"type": "function", "name": "f", "parameters": schema}]},
        {"tools": [{"name": "f", "input_schema": schema}]},
    ):
        said = str(refused(body))
        assert json.dumps(SLOW) in said
        assert "in more than one way" in said


def test_grammars_are_closed_unless_the_settings_open_them() -> None:
    tag = {"type": "structural_tag", "format": {"type": "grammar", "grammar": "root ::= root"}}
    for body in (
        {"structured_outputs": {"grammar": "root ::= root"}},
        {"structured_outputs": {"structural_tag": json.dumps(tag)}},
        {"response_format": tag},
    ):
        assert "PREDICT_LIMIT_GRAMMAR_BYTES" in str(refused(body))
        structured_outputs.check(body, {**NO_LIMITS, "grammar_bytes": 1000})
        structured_outputs.check(body, NO_LIMITS)
        assert "at most 5 are allowed" in str(refused(body, {**NO_LIMITS, "grammar_bytes": 5}))


def limited(schema: dict[str, Any], most: int) -> None:
    structured_outputs.check(
        {"structured_outputs": {"json": schema}}, {**NO_LIMITS, "schema_count": most}
    )


def test_a_length_counts_for_each_choice_of_the_field() -> None:
    string = {"type": "string", "maxLength": 20}
    limited({"properties": {"a": string, "b": dict(string)}}, 40)
    lexical = {"anyOf": [{"properties": {"a": dict(string)}} for _ in range(10)]}
    referred = {
        "$defs": {str(i): {"properties": {"a": dict(string)}} for i in range(10)},
        "oneOf": [{"$ref": f"#/$defs/{i}"} for i in range(10)],
    }
    for schema in (lexical, referred):
        limited(schema, 10 * 10 * 20)
        with pytest.raises(RequestError, match="has 2000 as the sum"):
            limited(schema, 10 * 10 * 20 - 1)


def test_a_long_length_counts_little_more_in_a_choice() -> None:
    limited({"anyOf": [{"maxLength": 10_000}, {"type": "null"}]}, 10_128)

"""Which form output is constrained to."""

import json
from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests import structured_outputs
from predict.settings import DEFAULT_LIMITS, RequestLimits

from tests.support.limits import NO_LIMITS


def refused(body: dict[str, Any], limits: RequestLimits = DEFAULT_LIMITS) -> RequestError:
    with pytest.raises(RequestError) as error:
        structured_outputs.check(structured_outputs.opened(body), limits)
    assert str(error.value.param).startswith(next(iter(body)))
    assert error.value.status == 400
    return error.value


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"structured_outputs": {"regex": ""}}, "empty"),
        ({"structured_outputs": {"json": "{"}}, "not JSON"),
        ({"structured_outputs": {"json": '{"$ref": "http://a"}'}}, "$ref"),
        ({"text": {"format": {"schema": {"$ref": "file:///a"}}}}, "$ref"),
        ({"response_format": {"json_schema": {"schema": {"minLength": -1}}}}, "minLength"),
    ],
)
def test_what_the_engine_would_choke_on_is_refused(schema: dict[str, Any], said: str) -> None:
    assert said in str(refused(schema, NO_LIMITS))


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"items": [{"minItems": -1}]}, "items[0].minItems"),
        ({"properties": {"default": {"$ref": "a.json"}}}, "properties.default.$ref"),
        ({"$defs": {"enum": {"anyOf": [{"maxLength": -2}]}}}, "$defs.enum.anyOf[0].maxLength"),
    ],
)
def test_what_is_wrong_in_a_schema_is_named_with_its_path(schema: Any, place: str) -> None:
    tool = {"function": {"parameters": schema}}
    for body, root in (
        ({"response_format": {"schema": schema}}, "response_format.schema"),
        ({"tools": [tool], "tool_choice": "any"}, "tools[0].function.parameters"),
    ):
        error = refused(body)
        assert error.param == f"{root}.{place}"
        assert str(error).startswith(f"'{root}.{place}' is ")
    deep = refused({"response_format": {"properties": {"é" * 500: {"properties": {"b": schema}}}}})
    assert str(error.param).endswith(place)
    assert len(str(deep)) < 300


@pytest.mark.parametrize("keyword", ["default", "const", "enum", "examples", "input_examples"])
def test_values_in_a_schema_are_data(keyword: str) -> None:
    value = [{"minItems": -1, "$ref": "http://a", "properties": {"a": {"maxLength": -1}}}]
    schema = {"properties": {"a": {keyword: value}}}
    structured_outputs.check({"response_format": {"schema": schema}}, DEFAULT_LIMITS)


def test_a_schema_s_references_within_it_are_allowed() -> None:
    schema = {"$defs": {"a": {"$ref": "#"}}, "items": {"$ref": "#/$defs/a"}, "minItems": True}
    structured_outputs.check(
        structured_outputs.opened({"structured_outputs": {"json": json.dumps(schema)}}),
        {**NO_LIMITS, "schema_depth": 9},
    )


FAR = {"type": "object", "properties": {"a": {"$ref": "http://a"}}}


@pytest.mark.parametrize("choice", ["required", "any", {"type": "function"}, {"type": "any"}])
def test_tools_that_must_be_called_constrain(choice: Any) -> None:
    refused({"tools": [{"function": {"parameters": FAR}}], "tool_choice": choice})


@pytest.mark.parametrize("choice", ["auto", "none", None, {"type": "auto"}])
def test_tools_that_are_only_offered_are_words_in_the_prompt(choice: Any) -> None:
    schema = {"maxLength": 524_288, "minItems": -1, "pattern": r"\p{L}(?=a)", **FAR}
    body = {"tools": [{"function": {"parameters": schema}}], "tool_choice": choice}
    structured_outputs.check(body, DEFAULT_LIMITS)
    refused({"tools": ["x" * 70_000]})


def test_what_a_constraint_costs_is_for_constraints_to_measure() -> None:
    tag = {"type": "structural_tag", "format": {"type": "grammar", "grammar": "root ::= root"}}
    for body in (
        {"structured_outputs": {"grammar": "root ::= root"}},
        {"structured_outputs": {"regex": r"^(\w+\s?)+$"}},
        {"response_format": tag},
    ):
        structured_outputs.check(structured_outputs.opened(body), DEFAULT_LIMITS)

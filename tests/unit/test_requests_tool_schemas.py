"""mistral-common takes schemas of tools that are only words of the prompt."""

from typing import Any

import pytest
from mistral_common.protocol.instruct import validator
from mistral_common.protocol.instruct.tool_calls import Function
from mistral_common.protocol.instruct.validator import MistralRequestValidatorV3
from predict.requests import tool_schemas


def schema(**keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": keywords}}


WORDS = [
    schema(type="string", pattern=r"^\p{L}+$"),
    schema(type="string", pattern="("),
    schema(type="array", minItems=-1),
    schema(type="integer", maximum=2**64 - 1),
]


@pytest.mark.parametrize("parameters", WORDS)
def test_patterns_and_signs_are_left_to_the_model(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "validate_json_schema_by_draft7"
    monkeypatch.setattr(validator, name, getattr(validator, name))  # undone after the test
    tool_schemas.install()
    MistralRequestValidatorV3()._validate_function(Function(name="f", parameters=parameters))


@pytest.mark.parametrize(
    "parameters", [schema(type="objekt"), schema(minimum=True), {"properties": []}]
)
def test_errors_of_structure_stay(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not"):
        tool_schemas.validate(parameters)


def test_no_list_is_searched_for_what_it_has_twice() -> None:
    """jsonschema compares each with each where it cannot sort them: 10,000 would take 10 s."""
    for keyword in ("required", "type"):
        assert [*tool_schemas.faults({keyword: ["object", "object"]})] == []


def test_a_good_schema_is_looked_at_once_and_a_bad_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[Any] = []
    faults = tool_schemas.faults

    def noted(value: Any) -> Any:
        looked.append(value)
        return faults(value)

    monkeypatch.setattr(tool_schemas, "faults", noted)
    for _ in range(3):
        tool_schemas.validate(schema(type="string", description="once"))
    assert len(looked) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="is not"):
            tool_schemas.validate(schema(type="objekt"))
    assert len(looked) == 3

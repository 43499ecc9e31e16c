"""mistral-common takes schemas of tools that are only words of the prompt."""

from typing import Any

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st
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


PLAIN: list[Any] = [True, None, 0, 1.0, -1, 1.5, "object", "b", [], ["a"], ["null"], [1], {}]
VALUES = st.sampled_from(PLAIN)


def drawn(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with schemas of `inner`, and values that are none."""
    names = st.sampled_from(["a", "b", "properties", "items"])
    of: dict[str, st.SearchStrategy[Any]] = {}
    for keyword in tool_schemas.KEYWORDS:
        of[keyword] = inner | st.lists(inner, max_size=3) | st.dictionaries(names, inner)
    return st.dictionaries(st.sampled_from([*of, "x-more"]), VALUES | st.one_of(*of.values()))


SCHEMAS = st.recursive(VALUES, drawn, max_leaves=12)


@pytest.mark.parametrize("keyword", [*tool_schemas.KEYWORDS, "x-more"])
def test_each_keyword_takes_what_it_takes_with_jsonschema(keyword: str) -> None:
    for value in [*PLAIN, {"a": True}, {"a": 5}, {"a": ["b"]}, {"a": [5]}, [{}, 5]]:
        check({keyword: value})


@hypothesis.given(SCHEMAS)
@hypothesis.settings(max_examples=100)
def test_faults_are_those_of_jsonschema_and_where_it_has_them(drawn: Any) -> None:
    check(drawn)


def check(drawn: Any) -> None:
    theirs = {
        (*error.absolute_path,): error
        for error in jsonschema.Draft7Validator(jsonschema.Draft7Validator.META_SCHEMA).iter_errors(
            drawn
        )
        if error.validator not in ("minimum", "uniqueItems")
    }
    ours = {(*error.absolute_path,) for error in tool_schemas.faults(drawn)}
    assert bool(ours) == bool(theirs)
    for place in ours:  # theirs end where a value may be one of several things
        assert any(place[: len(start)] == start for start in theirs), (place, [*theirs])


@pytest.mark.parametrize(
    ("faulty", "place"),
    [
        ({"properties": {"a": {"type": "objekt"}}}, ("properties", "a", "type")),
        ({"anyOf": [{}, {"items": [True, {"title": 5}]}]}, ("anyOf", 1, "items", 1, "title")),
        ({"dependencies": {"a": ["b"], "c": {"enum": 5}}}, ("dependencies", "c", "enum")),
        ({"allOf": [True, 5]}, ("allOf", 1)),
        ({"allOf": []}, ("allOf",)),
    ],
)
def test_a_fault_has_its_place(faulty: Any, place: tuple[str | int, ...]) -> None:
    assert (*next(tool_schemas.faults(faulty)).absolute_path,) == place


def test_only_what_is_wrong_is_jsonschema_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 1.4 s for 64 KiB of dependencies."""
    asked: list[Any] = []

    class Rules:
        def iter_errors(self, value: Any) -> Any:
            asked.append(value)
            return iter(())

    monkeypatch.setattr(tool_schemas, "_rules", Rules)
    good = {str(number): ["a"] for number in range(5000)}
    tool_schemas.validate({"dependencies": good, "properties": {"a": {"title": "b"}}})
    assert asked == []
    tool_schemas.validate({"dependencies": good | {"a": {"title": 5}}, "allOf": [{}, {}]})
    tool_schemas.validate({"dependencies": good, "title": 5})
    emptied = {"dependencies": {}, "allOf": [True]}
    assert asked == [{"title": 5}, emptied, {"dependencies": {}, "title": 5}]

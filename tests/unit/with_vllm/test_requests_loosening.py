"""What of a schema the engine does not follow is brought into another form, named or refused."""

import json
from typing import Any

import pytest
import xgrammar
from predict.errors import RequestError
from predict.requests.conversations.notes import Notes
from predict.requests.loosening import loosened
from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features
from xgrammar.testing import _is_grammar_accept_string

OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
    "additionalProperties": False,
}
A, B = {"a": "x"}, {"b": "x"}
ALIVE = {"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}}
STRING = {"type": "string"}


def taken(schema: Any, value: Any) -> bool:
    """Whether xgrammar lets the model write this."""
    grammar = xgrammar.Grammar.from_json_schema(
        json.dumps(schema), any_whitespace=False, separators=(",", ":")
    )
    return _is_grammar_accept_string(grammar, json.dumps(value, separators=(",", ":")))


# What comes of each: a value that the engine takes and one that it does not.
FOLLOWED: list[tuple[dict[str, Any], Any, Any]] = [
    ({"minLength": 3}, "abc", "a"),
    ({"pattern": "^a$"}, "a", "b"),
    ({"format": "date"}, "2020-01-01", "b"),
    ({"minimum": 5}, 7, 1),
    ({"minItems": 2}, [1, 2], [1]),
    ({"minLength": 2, "minimum": 5}, "ab", 1),
    ({"patternProperties": {"^a": {"type": "integer"}}}, {"a": 1}, {"a": "x"}),
    ({"propertyNames": {"pattern": "^a$"}}, {"a": 1}, {"b": 1}),
    ({"items": [STRING], "additionalItems": False}, ["a"], ["a", 1]),
    ({"type": "array", "items": [STRING], "additionalItems": {"const": 1}}, ["a", 1], [1]),
    ({**OBJECT, "allOf": []}, A, 1),
    ({**OBJECT, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, B, {}),
    ({**OBJECT, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, A, {}),
    ({**OBJECT, "allOf": [{"required": ["a"]}]}, A, {}),
    ({**OBJECT, "required": ["b"], "anyOf": [{"required": ["a"]}, {}]}, B, A),
    ({**OBJECT, "anyOf": [{"anyOf": [{"required": ["a"]}]}, {"required": ["b"]}]}, A, {}),
    ({**OBJECT, "anyOf": [True]}, A, {"c": 1}),
    ({"type": "string", "anyOf": [{"minLength": 3}, {"pattern": "^a$"}]}, "a", "b"),
    ({"type": "object", "anyOf": [OBJECT, {"type": "null"}]}, None, "a"),
    ({"minLength": 2, "oneOf": [{"type": "string", "maxLength": 3}]}, "ab", "a"),
]
# What is named, and the place of it.
NAMED: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "string", "not": {"const": "x"}}, ["not"]),
    ({**OBJECT, **ALIVE}, ["if", "then"]),
    ({**OBJECT, "dependentRequired": {"a": ["b"]}}, ["dependentRequired"]),
    ({**OBJECT, "dependentSchemas": {"a": {"required": ["b"]}}}, ["dependentSchemas"]),
    ({**OBJECT, "dependencies": {"a": ["b"]}}, ["dependencies"]),
    ({"enum": ["a", "bbb"], "minLength": 2}, ["minLength"]),
    ({"const": "a", "anyOf": [{"const": "b"}]}, ["anyOf"]),
    ({"$ref": "#/$defs/a", "minLength": 3}, ["minLength"]),
    ({"multipleOf": 5}, ["multipleOf"]),
    ({"uniqueItems": True}, ["uniqueItems"]),
    ({"contains": {"const": 1}}, ["contains"]),
    ({"required": ["a"]}, ["required"]),
    ({"type": "string", "format": "date", "pattern": "^2020"}, ["pattern"]),
    ({"type": "object", "propertyNames": {"anyOf": [{"const": "a"}]}}, ["propertyNames"]),
    ({"minLength": 3, "anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}, ["minLength"]),
    ({"pattern": "^a", "anyOf": [STRING, {"type": "string", "pattern": "b$"}]}, ["pattern"]),
    ({"format": "jwt", "anyOf": [STRING, {"type": "null"}]}, ["format"]),
    ({"multipleOf": 5, "anyOf": [True]}, ["multipleOf"]),
    ({**OBJECT, "anyOf": [{"properties": {"a": {"const": "x"}}}]}, ["properties.a"]),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"$ref": "#/$defs/a", "properties": {}}, "properties"),
    ({**OBJECT, "anyOf": [{"$ref": "#/$defs/a"}]}, "properties"),
    ({"anyOf": [STRING], "oneOf": [STRING]}, "oneOf"),
    ({"items": STRING, "anyOf": [{"items": {"const": 1}}]}, "items"),
    ({"$dynamicRef": "#n"}, "$dynamicRef"),
    ({"type": "any"}, "type"),
    ({"type": ["string", "any"]}, "type"),
]


def within(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "$defs": {"a": STRING},
        "type": "object",
        "properties": {"p": schema},
        "required": ["p"],
    }


@pytest.mark.parametrize(("schema", "good", "bad"), FOLLOWED)
def test_what_can_be_followed_in_another_form_is(
    schema: dict[str, Any], good: Any, bad: Any
) -> None:
    whole, notes = within(schema), Notes()
    got = loosened(whole, "s", notes)
    assert not has_xgrammar_unsupported_json_features(got)
    assert taken(got, {"p": good})
    assert not taken(got, {"p": bad})
    assert list(notes.names) == []
    assert loosened(got, "s", notes) is got


@pytest.mark.parametrize(("schema", "gone"), NAMED)
def test_what_narrows_a_value_and_is_not_followed_is_named(
    schema: dict[str, Any], gone: list[str]
) -> None:
    notes = Notes()
    got = loosened(within(schema), "s", notes)
    assert list(notes.names) == [f"s.properties.p.{name}" for name in gone]
    assert not has_xgrammar_unsupported_json_features(got)
    xgrammar.Grammar.from_json_schema(json.dumps(got))
    again = Notes()
    loosened(got, "s", again)
    assert not again


@pytest.mark.parametrize(("schema", "keyword"), REFUSED)
def test_what_would_lose_its_shape_is_refused_with_its_path(
    schema: dict[str, Any], keyword: str
) -> None:
    with pytest.raises(RequestError) as caught:
        loosened(within(schema), "s", Notes())
    assert caught.value.param == f"s.properties.p.{keyword}"
    assert len(str(caught.value)) < 300


def test_what_stands_beside_many_choices_has_an_end() -> None:
    schema: dict[str, Any] = OBJECT
    for _ in range(30):
        schema = {"properties": {"a": schema}, "anyOf": [{"required": ["a"]}, {"required": []}]}
    with pytest.raises(RequestError, match="more than 5000 parts"):
        loosened(schema, "s", Notes())


def test_annotations_are_left_alone() -> None:
    mapping = {"propertyName": "kind", "mapping": {"type": "#/$defs/a"}}
    schema = {"anyOf": [OBJECT], "discriminator": mapping, "x-of-ours": {"type": "any", "not": {}}}
    notes = Notes()
    assert loosened(schema, "s", notes) is schema
    assert not notes


# Schemas of pydantic and zod that xgrammar does not follow, and what is left out of each.
NARROWED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"type": "string", "format": "uri", "minLength": 1, "maxLength": 9},
        ["minLength", "maxLength"],
    ),
    ({"type": "string", "format": "password", "writeOnly": True}, ["format"]),
    ({"type": "string", "format": "binary"}, ["format"]),
    ({"type": ["string", "null"], "format": "path"}, ["format"]),
    ({"type": "string", "format": "jwt", "pattern": "^a$"}, ["format"]),
    ({"type": "string", "pattern": "^a$", "maxLength": 3}, ["maxLength"]),
    ({"type": "array", "items": {}, "uniqueItems": True}, ["uniqueItems"]),
    ({"type": "integer", "multipleOf": 5}, ["multipleOf"]),
]


@pytest.mark.parametrize(("schema", "gone"), NARROWED)
def test_what_only_narrows_a_value_is_left_out_and_named(
    schema: dict[str, Any], gone: list[str]
) -> None:
    whole = {"type": "object", "properties": {"a": schema, "default": {"type": "string"}}}
    assert has_xgrammar_unsupported_json_features(whole)
    notes = Notes()
    got = loosened(whole, "s", notes)
    assert not has_xgrammar_unsupported_json_features(got)
    assert list(notes.names) == [f"s.properties.a.{name}" for name in gone]
    kept = {name: value for name, value in schema.items() if name not in gone}
    assert got["properties"]["a"] == kept
    assert loosened(got, "s", Notes()) is got


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "object", "properties": {}, "patternProperties": {"a": {}}}, "patternProperties"),
        ({"type": "object", "patternProperties": {"a": {}, "b": {}}}, "patternProperties"),
        ({"type": "object", "properties": {}, "propertyNames": {}}, "propertyNames"),
        ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, "allOf"),
    ],
)
def test_what_would_change_the_shape_is_refused_with_its_path(
    schema: dict[str, Any], keyword: str
) -> None:
    assert has_xgrammar_unsupported_json_features(schema)
    with pytest.raises(RequestError) as caught:
        loosened({"properties": {"a": schema}}, "s", Notes())
    assert f"'s.properties.a.{keyword}'" in str(caught.value)

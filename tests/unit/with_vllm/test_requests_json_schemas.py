"""References in JSON schemas lead where they did, in a form that the engine follows."""

import json
from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests import formats
from predict.requests.conversations.notes import Notes
from predict.requests.json_schemas import inlined, pointed
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "reference", ["#/properties/a/anyOf/1", "#/$defs/a~1b%20c", "#/%24defs/a~1b c", "#/$defs/d~0"]
)
def test_a_reference_is_any_pointer_into_the_schema(reference: str) -> None:
    text: dict[str, Any] = {"type": "string"}
    schema = {
        "$defs": {"a/b c": text, "d~": text},
        "properties": {"a": {"anyOf": [{"type": "null"}, text]}, "b": {"$ref": reference}},
    }
    assert inlined(schema, "s")["properties"]["b"] == text
    for wrong in ("#/properties/a/anyOf/2", "#/properties/a/anyOf/-1", "#/properties/a/anyOf/x"):
        with pytest.raises(RequestError, match="nothing is there"):
            inlined({**schema, "items": {"$ref": wrong}}, "s")


def test_definitions_without_an_end_are_refused() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    with pytest.raises(RequestError, match="refers to itself"):
        inlined({"$defs": {"Node": node}, "$ref": "#/$defs/Node"}, "a")
    grows = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    with pytest.raises(RequestError, match="more than"):
        inlined({"$defs": {**grows, "d40": {}}, "$ref": "#/$defs/d0"}, "a")
    with pytest.raises(RequestError, match="nothing is there"):
        inlined({"$ref": "#/$defs/x"}, "a")


def test_lists_count_as_well_once_references_are_resolved() -> None:
    large = {"anyOf": [1] * 5000}
    every = {f"p{i}": {"$ref": "#/$defs/a"} for i in range(50)}
    with pytest.raises(RequestError, match="more than 20000 values"):
        inlined({"$defs": {"a": large}, "properties": every}, "s")


def test_what_many_spellings_lead_to_is_moved_once() -> None:
    text: dict[str, Any] = {"type": "string"}
    spellings = ["#/properties/%61", "#/%70roperties/a", "#/properties/%61", "#/properties%2Fa"]
    every = {f"p{i}": {"$ref": spelling} for i, spelling in enumerate(spellings)}
    found = pointed({"properties": {"a": text, **every}}, "s")
    assert found["$defs"] == {"moved-0": text}
    assert all(found["properties"][name] == {"$ref": "#/$defs/moved-0"} for name in every)


def test_what_moves_again_and_again_is_refused() -> None:
    node: dict[str, Any] = {"anyOf": [True] * 5000}
    path = "#/properties/%61"
    for _ in range(12):
        node = {"properties": {"a": node, "b": {"$ref": path}}}
        path += "/properties/a"
    with pytest.raises(RequestError, match="more than 20000 values"):
        pointed(node, "s")


@pytest.mark.parametrize(
    "reference",
    ["#/properties/a/anyOf/1", "#/$defs/a~1b%20c", "#/properties/t/items/0", "#/$defs/plain"],
)
def test_a_reference_that_the_engine_would_lose_leads_where_it_did(reference: str) -> None:
    text: dict[str, Any] = {"type": "string"}
    schema: dict[str, Any] = {
        "$defs": {"a/b c": text, "plain": text},
        "type": "object",
        "properties": {
            "a": {"anyOf": [{"type": "null"}, text]},
            "t": {"type": "array", "items": [text]},
            "b": {"$ref": reference},
        },
        "required": ["a", "t", "b"],
    }
    for sent in (schema, json.dumps(schema)):
        body = {"structured_outputs": {"json": sent}}
        got = formats.settled(CHAT, body, Notes())["structured_outputs"]["json"]
        grammar = Grammar.from_json_schema(json.dumps(got), separators=(",", ":"))
        assert _is_grammar_accept_string(grammar, '{"a":null,"t":["x"],"b":"y"}')
        assert not _is_grammar_accept_string(grammar, '{"a":null,"t":["x"],"b":1}')
    schema["properties"]["b"] = {"$ref": "#/$defs/none"}
    with pytest.raises(RequestError, match="nothing is there"):
        formats.settled(
            CHAT, {"response_format": {"type": "json_object", "schema": schema}}, Notes()
        )


def test_a_reference_may_lead_around_itself() -> None:
    more = {"type": "object", "properties": {"next": {"$ref": "#/anyOf/1"}}}
    body = {"structured_outputs": {"json": {"anyOf": [{"type": "null"}, more]}}}
    got = formats.settled(CHAT, body, Notes())["structured_outputs"]["json"]
    grammar = Grammar.from_json_schema(json.dumps(got), separators=(",", ":"))
    assert _is_grammar_accept_string(grammar, '{"next":{"next":{}}}')
    plain = {"structured_outputs": {"json": {"properties": {"a": {"$ref": "#"}}}}}
    assert formats.settled(CHAT, plain, Notes()) is plain
    text = {"structured_outputs": {"json": json.dumps({"type": "string"})}}
    assert formats.settled(CHAT, text, Notes()) is text


def test_two_references_never_lead_to_the_same_place_by_their_names() -> None:
    schema = {
        "$defs": {"a/b": {"type": "string"}, "a.b": {"type": "integer"}, "moved-0": {"const": 1}},
        "prefixItems": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/a%2Eb"}],
        "type": "array",
        "minItems": 2,
    }
    body = {"structured_outputs": {"json": schema}}
    got = formats.settled(CHAT, body, Notes())["structured_outputs"]["json"]
    assert got["$defs"].items() >= schema["$defs"].items()  # type: ignore[attr-defined]
    first, second = (got["$defs"][one["$ref"].rpartition("/")[2]] for one in got["prefixItems"])
    assert (first, second) == ({"type": "string"}, {"type": "integer"})
    wrong = {"$defs": ["a"], "items": {"$ref": "#/$defs/0"}}
    formats.settled(CHAT, {"structured_outputs": {"json": wrong}}, Notes())

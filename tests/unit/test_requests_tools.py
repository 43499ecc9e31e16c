"""Tools, their choice and the form of an answer, in every client's words → vLLM's."""

from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests import formats, tools
from predict.requests.conversations.generations import GENERATIONS
from predict.requests.conversations.notes import Notes
from predict.requests.words import explained

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
OPENAI = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
FLAT = {"type": "function", "strict": False, "name": "f", "parameters": SCHEMA}
MESSAGES = {"name": "f", "input_schema": SCHEMA}


def settled(path: str, body: dict[str, Any], name: str = "v3") -> tuple[dict[str, Any], list[str]]:
    notes = Notes()
    return tools.settled(path, body, GENERATIONS[name], notes), list(notes.names)


def refused(path: str, body: dict[str, Any], name: str = "v3") -> str:
    with pytest.raises(RequestError) as caught:
        settled(path, body, name)
    assert caught.value.param
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "tool"), [(CHAT, OPENAI), (RESPONSES, FLAT), (ANTHROPIC, MESSAGES)]
)
def test_a_tool_of_any_form_is_taken_on_every_route(path: str, tool: dict[str, Any]) -> None:
    body = {"tools": [tool]}
    assert settled(path, body)[0] is body
    for other in (OPENAI, FLAT, MESSAGES, {"function": OPENAI["function"]}):
        assert settled(path, {"tools": [other]}) == ({"tools": [tool]}, [])


@pytest.mark.parametrize("path", [CHAT, RESPONSES, ANTHROPIC])
def test_tools_that_run_elsewhere_are_left_out_and_named(path: str) -> None:
    elsewhere = {"type": "web_search_20250305", "name": "web_search"}
    got, ignored = settled(path, {"tools": [elsewhere], "tool_choice": "auto", "a": 1})
    assert (got, ignored) == ({"a": 1}, ["tools[0]"])


def test_custom_tools_are_text_on_responses_and_left_out_elsewhere() -> None:
    custom = {"type": "custom", "name": "patch", "format": {"type": "grammar", "definition": "x"}}
    got, ignored = settled(RESPONSES, {"tools": [custom]})
    assert got == {"tools": [{"type": "custom", "name": "patch"}]}
    assert ignored == ["tools[0].format"]


NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        (NAMED, NAMED),
        ({"type": "function", "name": "f"}, NAMED),
        ({"type": "tool", "name": "f"}, NAMED),
        ({"type": "any"}, "required"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}, "auto"),
    ],
)
def test_a_choice_of_any_form_is_taken(sent: Any, meant: Any) -> None:
    body = {"tools": [OPENAI], "tool_choice": sent}
    got, _ = settled(CHAT, body)
    assert got == {"tools": [OPENAI], "tool_choice": meant}
    assert (got is body) == (sent == meant)
    flat = {**body, "tools": [MESSAGES]}
    form = settled(ANTHROPIC, flat)[0]["tool_choice"]
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    assert form == ({"type": "tool", "name": "f"} if meant == NAMED else {"type": kinds[meant]})


def test_a_null_choice_is_none() -> None:
    body: dict[str, Any] = {"tools": [OPENAI], "tool_choice": None}
    assert settled(CHAT, body)[0] == {"tools": [OPENAI]}


def test_allowed_tools_are_those_that_stay() -> None:
    other = {"type": "function", "function": {"name": "g", "parameters": SCHEMA}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    got, _ = settled(CHAT, {"tools": [other, OPENAI], "tool_choice": choice})
    assert got == {"tools": [OPENAI], "tool_choice": "required"}


def test_an_allowed_tool_has_to_be_there() -> None:
    for mode in ("auto", "required"):
        named = [NAMED, {"type": "function", "name": "g"}]
        choice = {"type": "allowed_tools", "mode": mode, "tools": named}
        said = refused(CHAT, {"tools": [OPENAI], "tool_choice": choice})
        assert said.startswith("""'tool_choice' allows "g", which is not among 'tools'""")
    elsewhere = {"type": "web_search", "name": "w"}
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [elsewhere]}
    assert settled(CHAT, {"tools": [OPENAI, elsewhere], "tool_choice": choice}) == (
        {},
        ["tools[1]"],
    )


SPACE = {
    "type": "namespace",
    "name": "crm",
    "description": "d",
    "tools": [FLAT, {**FLAT, "name": "g", "parameters": {"$ref": "#/$defs/a", "$defs": {"a": {}}}}],
}


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", ["crm__f", "crm__g", "h"]),
        ({"type": "function", "name": "g"}, ["crm__g"]),
        ({"type": "function", "name": "crm__f"}, ["crm__f"]),
        ({"type": "function", "name": "h"}, ["h"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "crm__g"}],
            },
            ["crm__g"],
        ),
    ],
)
def test_tools_of_a_namespace_are_called_by_their_full_names(choice: Any, names: list[str]) -> None:
    body = {"tools": [SPACE, {**FLAT, "name": "h"}], "tool_choice": choice}
    schema = settled(RESPONSES, body)[0]["structured_outputs"]["json"]
    offered = [one["properties"]["name"]["enum"][0] for one in schema["items"]["anyOf"]]
    assert offered == names
    assert "$ref" not in str(schema)
    assert "is not among" in refused(
        RESPONSES, {**body, "tool_choice": {"type": "tool", "name": "x"}}
    )


@pytest.mark.parametrize("choice", ["required", NAMED, "any"])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, ANTHROPIC])
def test_a_choice_that_cannot_be_kept_is_refused(path: str, choice: Any) -> None:
    assert "no tools" in refused(path, {"tools": [OPENAI], "tool_choice": choice}, "v1")
    assert "none to call" in refused(path, {"tools": [], "tool_choice": choice})
    assert "none to call" in refused(path, {"tool_choice": choice})


def test_a_named_tool_has_to_be_there() -> None:
    body = {"tools": [OPENAI], "tool_choice": {"type": "function", "function": {"name": "g"}}}
    assert 'is "g", which is not among' in refused(CHAT, body)
    assert "it takes auto, none" in refused(CHAT, {"tools": [OPENAI], "tool_choice": "maybe"})


def test_without_tools_of_its_own_a_tokenizer_gets_none_and_they_are_named() -> None:
    assert settled(CHAT, {"tools": [OPENAI], "tool_choice": "auto"}, "v1") == ({}, ["tools"])


@pytest.mark.parametrize("mode", ["required", "named"])
def test_responses_hold_the_answer_to_a_call(mode: str) -> None:
    choice = "required" if mode == "required" else {"type": "function", "name": "f"}
    body: dict[str, Any] = {"tools": [FLAT, {**FLAT, "name": "g"}], "tool_choice": choice}
    body["text"] = {"format": {"type": "json_object"}, "verbosity": "low"}
    got, ignored = settled(RESPONSES, body)
    assert got["tool_choice"] == "required"
    schema = got["structured_outputs"]["json"]
    names = [one["properties"]["name"]["enum"] for one in schema["items"]["anyOf"]]
    assert names == ([["f"], ["g"]] if mode == "required" else [["f"]])
    assert schema.get("maxItems") == (None if mode == "required" else 1)
    assert got["text"] == {"verbosity": "low"}
    assert ignored == ["text.format"]


def test_definitions_stand_in_the_place_of_their_references_where_something_is_compiled() -> None:
    city: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = {
        "$defs": {"City": city, "Two": {"type": "array", "items": {"$ref": "#/$defs/City"}}},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/Two", "description": "b"}, "$ref": {"const": "x"}},
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = {"tools": [tool], "tool_choice": "auto"}
    assert settled(CHAT, body)[0] is body
    got, _ = settled(CHAT, {**body, "tool_choice": "required"})
    parameters = got["tools"][0]["function"]["parameters"]
    assert parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": city, "description": "b"},
            "$ref": {"const": "x"},
        },
    }


WANTED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (WANTED, WANTED),
        ({"type": "json_object"}, {"type": "json_object"}),
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object", "value": SCHEMA}, WANTED),
        ({"type": "json_object", "schema": SCHEMA}, WANTED),
        ({"type": "json", "value": SCHEMA}, WANTED),
        ({"type": "json_schema", "schema": SCHEMA}, WANTED),
        ({"type": "json_schema", "json_schema": SCHEMA}, WANTED),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}}, WANTED),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": None}},
            {"type": "json_object"},
        ),
    ],
)
def test_a_response_format_of_any_form_is_taken(sent: Any, meant: Any) -> None:
    body = {"response_format": sent}
    got = formats.settled(CHAT, body, Notes())
    assert got == {"response_format": meant}
    assert (got is body) == (sent == meant)


@pytest.mark.parametrize("inner", [{}, {"json_schema": {"name": "a"}}, {"json_schema": None}])
def test_a_schema_that_is_promised_and_not_there_is_named(inner: dict[str, Any]) -> None:
    notes = Notes()
    body = {"response_format": {"type": "json_schema", **inner}}
    got = formats.settled(CHAT, body, notes)
    assert got == {"response_format": {"type": "json_object"}}
    assert list(notes.names) == ["response_format.json_schema"]


def test_a_tool_without_a_function_is_told_its_form() -> None:
    with pytest.raises(RequestError, match=r"'tools\[0\]' has no function; it takes {") as got:
        settled(CHAT, {"tools": [{"type": "function"}]})
    assert got.value.param == "tools[0]"


@pytest.mark.parametrize("kind", ["jsn", "regex", "", 5])
def test_a_response_format_of_no_known_type_says_which_are(kind: Any) -> None:
    with pytest.raises(RequestError, match=r"one of text, json_object, .*regex") as got:
        formats.settled(CHAT, {"response_format": {"type": kind}}, Notes())
    assert got.value.param == "response_format.type"


def test_the_other_routes_forms_are_taken() -> None:
    nested = {"text": {"format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}}
    flat = {"type": "json_schema", "name": "answer", "schema": SCHEMA}
    assert formats.settled(RESPONSES, nested, Notes()) == {"text": {"format": flat}}
    beta = {"output_format": {"type": "json_schema", "schema": SCHEMA}}
    got = formats.settled(ANTHROPIC, beta, Notes())
    assert got == {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}


def test_functions_are_told_their_new_name() -> None:
    assert "send 'tools'" in refused(CHAT, {"functions": [{"name": "f"}]})


def test_a_schema_that_is_none_is_named_with_tool_and_path() -> None:
    wrong = {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": True}}}
    sent = [OPENAI, {"type": "function", "function": {"name": "g", "parameters": wrong}}]
    request = {"tools": sent}
    said, place = explained("Invalid tool schema: True is not of type 'number'", None, request)
    assert place == "tools[1].function.parameters.properties.a.exclusiveMinimum"
    assert said == f"'{place}' is true; it takes a number (JSON schema)"
    assert explained("something else", None, request) == ("something else", None)

"""A refusal names a place of the request as it was sent, on every route."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests.conversations.generations import GENERATIONS
from predict.requests.conversations.notes import Notes
from predict.requests.preparation import prepared

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
ABSENT = object()
WRONG = [None, 5, "", "x", [], {}, True, [None], [5], {"a": 1}, [{}], [{"type": "foo"}], ABSENT]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
USER = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TEXT = {"type": "text", "text": "a"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "s"},
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": [TEXT]},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": FORMAT,
        },
    ),
    (
        RESPONSES,
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [TEXT]},
            ],
            "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        },
    ),
    (
        ANTHROPIC,
        {
            "system": [TEXT],
            "messages": [
                {"role": "user", "content": [TEXT]},
                {
                    "role": "assistant",
                    "content": [TEXT, {"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": [TEXT]}],
                },
            ],
            "tools": [{"name": "f", "input_schema": SCHEMA}],
            "tool_choice": {"type": "tool", "name": "f"},
        },
    ),
]


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in inner if isinstance(node, (dict, list)) else ():
        yield (*place, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*place, key))


def changed(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    body = copy.deepcopy(body)
    node = body
    for key in place[:-1]:
        node = node[key]
    if value is ABSENT:
        del node[place[-1]]
    else:
        node[place[-1]] = copy.deepcopy(value)
    return body


def is_there(body: Any, place: str) -> bool:
    """Whether a place is in the body, or is what an object of it lacks."""
    steps = re.findall(r"[^.\[\]]+|\[\d+\]", place)
    for step in steps:
        key: Any = int(step[1:-1]) if step.startswith("[") else step
        if isinstance(key, str) and isinstance(body, dict) and key not in body:
            return step is steps[-1]
        try:
            body = body[key]
        except (LookupError, TypeError):
            return False
    return True


def refusal(path: str, body: dict[str, Any]) -> RequestError | None:
    try:
        prepared(path, body, GENERATIONS["v3"], Notes())
    except RequestError as error:
        return error
    return None


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_the_place_is_one_of_the_request(path: str, body: dict[str, Any]) -> None:
    assert refusal(path, copy.deepcopy(body)) is None
    refused = 0
    for place in places(body):
        for value in WRONG:
            sent = changed(body, place, value)
            if error := refusal(path, sent):
                refused += 1
                assert error.param
                assert is_there(sent, error.param), f"{error} for {place} = {value}"
                assert len(str(error)) < 300
    assert refused > 20


@pytest.mark.parametrize(("path", "body"), REQUESTS)
@pytest.mark.parametrize("generation", ["v1", "v3"])
def test_what_is_ignored_is_named_by_its_place(
    path: str, body: dict[str, Any], generation: str
) -> None:
    if generation == "v1":
        body = {name: value for name, value in body.items() if name != "tool_choice"}
    for place in places(body):
        for value in WRONG:
            sent = changed(body, place, value)
            notes = Notes()
            try:
                prepared(path, sent, GENERATIONS[generation], notes)
            except RequestError:
                continue
            assert [name for name in notes.names if not is_there(sent, name)] == []


def test_a_text_beside_a_call_is_named_as_it_was_sent() -> None:
    body = copy.deepcopy(REQUESTS[2][1])
    notes = Notes()
    prepared(ANTHROPIC, body, GENERATIONS["v3"], notes)
    assert list(notes.names) == ["messages[1].content[0]"]


def unanswered(path: str, arguments: Any, generation: str = "v3") -> list[str]:
    """What is named of an assistant with a text and two calls that nobody answered."""
    answer: list[Any]
    if path == CHAT:
        call = {**CALL, "function": {"name": "f", "arguments": arguments}}
        answer = [{"role": "assistant", "content": "a", "tool_calls": [call]}]
        answer += [{"role": "assistant", "content": "", "tool_calls": [{**call, "id": "call_2"}]}]
    elif path == RESPONSES:
        call = {"type": "function_call", "name": "f", "arguments": arguments}
        answer = [{"role": "assistant", "content": "a"}, {**call, "call_id": "c"}]
        answer += [{**call, "call_id": "d"}]
    else:
        call = {"type": "tool_use", "name": "f", "input": arguments}
        answer = [
            {"role": "assistant", "content": [TEXT, {**call, "id": "c"}, {**call, "id": "d"}]}
        ]
    name = "input" if path == RESPONSES else "messages"
    notes = Notes()
    prepared(path, {name: [USER, *answer, USER]}, GENERATIONS[generation], notes)
    return list(notes.names)


@pytest.mark.parametrize("generation", ["v1", "v3"])
def test_calls_without_results_are_named_as_they_were_sent(generation: str) -> None:
    assert unanswered(CHAT, "{}", generation) == [
        "messages[1].tool_calls[0]",
        "messages[2].tool_calls[0]",
    ]
    assert unanswered(RESPONSES, "{}", generation) == ["input[2]", "input[3]"]
    assert unanswered(ANTHROPIC, {}, generation) == [
        "messages[1].content[1]",
        "messages[1].content[2]",
    ]


@pytest.mark.parametrize("arguments", ["{", "[]", "5", "nothing", [1]])
def test_arguments_that_are_no_object_are_named(arguments: Any) -> None:
    function = "tool_calls[0].function.arguments"
    expected = [f"messages[1].{function}", f"messages[2].{function}"]
    assert unanswered(CHAT, arguments)[:2] == expected
    assert unanswered(RESPONSES, arguments)[:2] == ["input[2].arguments", "input[3].arguments"]
    if isinstance(arguments, list):
        names = ["messages[1].content[1].input", "messages[1].content[2].input"]
        assert unanswered(ANTHROPIC, arguments)[:2] == names


def test_items_that_are_all_left_out_are_no_conversation() -> None:
    error = refusal(RESPONSES, {"input": [{"type": "web_search_call", "id": "a"}]})
    assert error is not None
    assert error.param == "input"


def test_a_null_of_an_image_is_left_out() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:", "detail": None}}
    body = {"messages": [{"role": "user", "content": [image]}]}
    (message,) = prepared(CHAT, body, GENERATIONS["v3"], Notes())["messages"]
    assert message["content"] == [{"type": "image_url", "image_url": {"url": "data:"}}]

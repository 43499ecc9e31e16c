"""Tools and tool choice in the forms of many clients: the real routes obey or reject the choice."""

import json
from typing import Any

import pytest

from local.standins.corpus import load_dialogues
from tests.support.client_requests import (
    ANTHROPIC,
    CHAT,
    FLAT,
    FUNCTION,
    MESSAGES_TOOL,
    NAME,
    QUESTION,
    RESPONSES,
    TOOLS,
    WIND,
    ask,
    call,
    called,
    mistral,
    mixtral,
    result,
    said,
    with_tools,
)
from tests.support.container import Running


@with_tools
def test_a_tool_that_is_only_offered_is_words(container: Running) -> None:
    pattern = {"type": "string", "pattern": r"^\p{L}+$", "maxLength": 524288}
    number = {"type": "integer", "maximum": 2**64 - 1}
    properties = {"a": pattern, "b": number, "c": {"type": "array", "minItems": -1}}
    schema = {"type": "object", "properties": properties}
    function = {**FUNCTION, "parameters": schema}
    ask(container, CHAT, messages=[WIND], tools=[{"type": "function", "function": function}])
    ask(container, RESPONSES, input="hi", tools=[{**FLAT, "parameters": schema}])
    ask(container, ANTHROPIC, messages=[WIND], tools=[{**MESSAGES_TOOL, "input_schema": schema}])


@with_tools
def test_tools_that_may_not_be_called_are_not_seen(container: Running) -> None:
    expected = load_dialogues()["dialogues"]["weather_without_tools"][1]["assistant"]
    answer, _ = ask(
        container, CHAT, messages=[QUESTION], tools=TOOLS["definitions"], tool_choice="none"
    )
    assert said(answer) == expected
    answer, _ = ask(container, RESPONSES, input=[QUESTION], tools=[FLAT], tool_choice="none")
    assert said(answer) == expected
    none = {"type": "none"}
    answer, _ = ask(
        container, ANTHROPIC, messages=[QUESTION], tools=[MESSAGES_TOOL], tool_choice=none
    )
    assert said(answer) == expected


@mistral
@pytest.mark.parametrize("choice", ["any", "required", {"type": "function", "name": NAME}])
def test_a_tool_that_has_to_be_called_is_called_on_every_route(
    container: Running, choice: Any
) -> None:
    city = {"type": "string", "maxLength": 5}
    schema = {
        "$defs": {"City": {"type": "object", "properties": {"name": city}, "required": ["name"]}},
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": NAME, "parameters": schema}
    ask_: dict[str, Any] = {"tool_choice": choice, "temperature": 0.3}
    tools = [{"type": "function", "function": function}]
    answer, _ = ask(container, CHAT, messages=[WIND], tools=tools, **ask_)
    made = answer["choices"][0]["message"]["tool_calls"][0]
    assert made["function"]["name"] == NAME
    answer, _ = ask(container, RESPONSES, input="Hi", tools=tools, **ask_)
    item = answer["output"][0]
    assert (item["type"], item["name"]) == ("function_call", NAME)


@with_tools
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": NAME}}])
@pytest.mark.parametrize("messages", [[QUESTION], [WIND]], ids=["weather", "wind"])
def test_a_call_that_has_to_be_made_ends(container: Running, choice: Any, messages: Any) -> None:
    body = {"messages": messages, "tools": TOOLS["definitions"], "tool_choice": choice}
    answer, _ = ask(container, CHAT, **body)
    (made,) = answer["choices"][0]["message"]["tool_calls"]
    assert made["function"]["name"] == NAME
    assert json.loads(made["function"]["arguments"]) == TOOLS["call"]["arguments"]


@with_tools
def test_an_answer_in_json_of_no_schema_ends(container: Running) -> None:
    for messages in ([QUESTION], [WIND]):
        form = {"type": "json_object"}
        answer, _ = ask(container, CHAT, messages=messages, response_format=form)
        assert json.loads(said(answer)) == TOOLS["call"]["arguments"]
        assert answer["choices"][0]["finish_reason"] == "stop"


@with_tools
def test_the_first_delta_of_a_call_has_arguments(container: Running) -> None:
    body = {"messages": [QUESTION], "tools": TOOLS["definitions"], "stream": True}
    lines = container.http.post(CHAT, json={**body, "temperature": 0}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    calls = [
        made for event in events for made in event["choices"][0]["delta"].get("tool_calls") or ()
    ]
    assert calls[0]["function"]["name"] == NAME
    assert all(isinstance(made["function"]["arguments"], str) for made in calls)
    whole = "".join(made["function"]["arguments"] for made in calls)
    assert json.loads(whole) == TOOLS["call"]["arguments"]


@mixtral
def test_a_model_without_tools_says_so(container: Running) -> None:
    answer, ignored = ask(container, CHAT, messages=[WIND], tools=TOOLS["definitions"])
    assert ignored == ["tools"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    body = {"messages": [WIND], "tools": TOOLS["definitions"], "tool_choice": "required"}
    response = container.http.post(CHAT, json=body)
    assert response.status_code == 400
    assert "no tools" in response.json()["error"]["message"]
    history = [QUESTION, called(call(), content="Hm"), result()]
    _, ignored = ask(container, CHAT, messages=history)
    assert ignored == ["messages[1].tool_calls"]

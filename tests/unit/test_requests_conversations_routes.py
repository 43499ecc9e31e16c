"""Conversations of /v1/responses and /v1/messages are read as the chat they mean."""

from typing import Any

import pytest
from predict.errors import RequestError
from predict.requests.conversations import adapted
from predict.requests.conversations.generations import generation
from predict.requests.conversations.notes import Notes

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"

USER: dict[str, Any] = {"role": "user", "content": "hi"}

CALL_ID = "abcdefghi"


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_items_of_responses_are_read_as_the_chat_they_mean() -> None:
    text = {"type": "input_text", "text": "hi"}
    items = [
        {"type": "message", "role": "user", "content": [text, text]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "zzz"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see"}]},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": [text]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ]
    notes = Notes()
    got = adapted(RESPONSES, {"input": items}, generation("v3"), notes)
    assert got["input"] == [
        {"role": "user", "content": "hi\n\nhi"},
        {"type": "function_call", "call_id": "KkkZdHt3L", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "KkkZdHt3L", "output": "hi"},
    ]
    assert list(notes.names) == ["input[1]", "input[5]", "input[2].content"]


@pytest.mark.parametrize(
    "items",
    [
        [USER],
        [{"role": "developer", "content": "a"}, USER],
        [
            USER,
            {"type": "function_call", "call_id": CALL_ID, "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "abcdefghj", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": CALL_ID, "output": "14"},
            {"type": "function_call_output", "call_id": "abcdefghj", "output": "14"},
        ],
        [USER, {"role": "assistant", "content": "a", "status": "incomplete"}],
    ],
)
def test_items_that_need_nothing_are_the_same_object(items: list[Any]) -> None:
    body = {"input": items}
    assert adapted(RESPONSES, body, generation("v3"), Notes()) is body


def test_an_item_that_refers_to_what_was_stored_is_refused() -> None:
    with pytest.raises(RequestError, match="nothing is stored"):
        adapted(
            RESPONSES, {"input": [{"type": "item_reference", "id": "a"}]}, generation("v3"), Notes()
        )


def test_anthropic_s_messages_are_read_as_the_chat_they_mean() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
    answer = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "14"}
    messages = [
        USER,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, use]},
        {"role": "user", "content": [answer, {"type": "text", "text": "go on"}]},
    ]
    notes = Notes()
    got = adapted(ANTHROPIC, {"messages": messages}, generation("v3"), notes)
    assert got["messages"] == [
        USER,
        {"role": "assistant", "content": [{**use, "id": "KkkZdHt3L"}]},
        {"role": "user", "content": [{**answer, "tool_use_id": "KkkZdHt3L"}]},
        user("go on"),
    ]
    assert list(notes.names) == ["messages[1].content[0]"]


def test_anthropic_s_messages_that_need_nothing_are_the_same_object() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a"}}
    use = {"type": "tool_use", "id": CALL_ID, "name": "f", "input": {"a": 1}}
    answer = {
        "type": "tool_result",
        "tool_use_id": CALL_ID,
        "content": [{"type": "text", "text": "a"}],
    }
    body = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {}}, image],
            },
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [answer]},
        ]
    }
    assert adapted(ANTHROPIC, body, generation("v3"), Notes()) is body


def test_a_tool_that_a_message_defines_is_refused_with_its_place() -> None:
    change = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {}}}
    removed = {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "f"}}
    for place, content in (("0", [change]), ("1", [{"type": "text", "text": "a"}, change])):
        messages = [{"role": "system", "content": content}, USER]
        with pytest.raises(RequestError) as caught:
            adapted(ANTHROPIC, {"messages": messages}, generation("v3"), Notes())
        assert caught.value.param == f"messages[0].content[{place}].tool"
    body = {"messages": [{"role": "system", "content": [removed]}, USER]}
    assert adapted(ANTHROPIC, body, generation("v3"), Notes()) is body


@pytest.mark.parametrize("path", [CHAT, RESPONSES, ANTHROPIC])
def test_a_system_message_behind_an_answer_asks_for_another(path: str) -> None:
    name = "input" if path == RESPONSES else "messages"
    answer = {"role": "assistant", "content": "a"}
    for text in ("s", [{"type": "text", "text": "s"}]):
        sent = [
            {"role": "system", "content": "r"},
            USER,
            answer,
            {"role": "system", "content": text},
        ]
        got = adapted(path, {name: sent}, generation("v3"), Notes())
        asked = got[name].pop()
        assert asked in (user("s"), user([{"type": "text", "text": "s"}]))
        assert got == {name: sent[:3]}

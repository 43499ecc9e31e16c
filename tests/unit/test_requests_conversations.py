"""Conversations of every client → what mistral-common's own tokenizers take, and what they mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict.requests.conversations.ids import NINE, short_ids

from tests.support.conversations import (
    CALL_ID,
    FILES,
    USER,
    call,
    calls,
    fit,
    ids,
    result,
    said,
    system,
    tokenizer,
    tokens,
    user,
)

NULLS: dict[str, Any] = {
    "refusal": None,
    "audio": None,
    "function_call": None,
    "annotations": [],
    "name": "me",
}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [system("s"), USER, said("a"), USER],
        [system("s"), {"role": "developer", "content": "t"}, USER],
        [USER, system("s")],
        [USER, said("a", **NULLS, tool_calls=[], reasoning_content=None), USER],
        [said("a"), USER],
        [USER, calls(call()), result()],
        [USER, calls(call()), result(), said("b"), USER],
        [USER, calls(call(), call("abcdefghj")), result(), result("abcdefghj")],
        [USER, calls(call()), USER],
        [user([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])],
        [user([{"type": "text", "text": "a"}, {"type": "text", "text": ""}])],
        [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}, USER],
    ],
)
def test_a_conversation_that_needs_nothing_is_the_same_object(messages: list[Any]) -> None:
    got, ignored = fit(messages)
    assert got["messages"] is messages
    assert ignored == []
    tokens("v3", messages)


# What clients send, what it means, and what is named as left out.
REPAIRED: list[tuple[list[Any], list[Any], list[str]]] = [
    ([USER, said(""), USER], [USER, USER], ["messages[1]"]),
    ([USER, {"role": "assistant", "content": None}, USER], [USER, USER], ["messages[1]"]),
    ([USER, {"role": "assistant"}, USER], [USER, USER], ["messages[1]"]),
    ([USER, {"role": "assistant", "content": []}], [USER], ["messages[1]"]),
    (
        [USER, calls(call(), text="Let me see"), result()],
        [USER, calls(call()), result()],
        ["messages[1].content"],
    ),
    (
        [USER, said("Let me see"), calls(call()), result()],
        [USER, calls(call()), result()],
        ["messages[1].content"],
    ),
    ([USER, said("a"), system("s"), USER], [USER, said("a"), user("s\n\nhi")], []),
    (
        [USER, said("a"), system("s"), system("t"), USER],
        [USER, said("a"), user("s\n\nt\n\nhi")],
        [],
    ),
    (
        [USER, calls(call()), result(), system("s")],
        [user("s\n\nhi"), calls(call()), result()],
        [],
    ),
    ([USER, said("a"), system("s")], [USER, said("a"), user("s")], []),
    (
        [USER, said("a"), {"role": "developer", "content": "s"}, system("t"), said("")],
        [USER, said("a"), user("s\n\nt")],
        ["messages[4]"],
    ),
    ([USER, calls(call()), system("s"), result()], [user("s\n\nhi"), calls(call()), result()], []),
    (
        [USER, said("a"), system("s"), user([{"type": "text", "text": "b"}])],
        [USER, said("a"), user("s\n\nb")],
        [],
    ),
    (
        [USER, said("a", reasoning_content="hm", reasoning="hm"), USER],
        [USER, said("a"), USER],
        ["messages[1].reasoning_content", "messages[1].reasoning"],
    ),
    (
        [USER, said([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]), USER],  # type: ignore[arg-type]
        [USER, said("a"), USER],
        ["messages[1].content[0]"],
    ),
    (
        [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER],
        [USER, said("no"), USER],
        [],
    ),
    (
        [USER, said([{"type": "refusal", "refusal": "no"}]), USER],  # type: ignore[arg-type]
        [USER, said("no"), USER],
        [],
    ),
    ([user(["a", {"text": "b"}])], [user("a\n\nb")], []),
    ([user([{"type": "input_text", "text": "a"}])], [user("a")], []),
    ([user([])], [user("")], []),
    ([{**USER, "name": None}], [USER], []),
    (
        [USER, calls({"id": CALL_ID, "function": {"name": "f", "arguments": {"a": 1}}}), result()],
        [USER, calls(call()), result()],
        [],
    ),
    (
        [USER, calls(call(arguments=None)), result(text=None)],
        [USER, calls(call(arguments="{}")), result(text="")],
        [],
    ),
    (
        [USER, calls(call()), calls(call("abcdefghj")), result(), result("abcdefghj")],
        [USER, calls(call(), call("abcdefghj")), result(), result("abcdefghj")],
        [],
    ),
    ([USER, calls(call()), USER, result()], [USER, calls(call()), result(), USER], []),
    (
        [USER, calls(call(), call("abcdefghj")), result(), said("a"), USER],
        [USER, calls(call()), result(), said("a"), USER],
        ["messages[1].tool_calls[1]"],
    ),
    (
        [USER, calls(call()), said("a"), USER],
        [USER, said("a"), USER],
        ["messages[1].tool_calls[0]"],
    ),
    (
        [
            USER,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "14"},
        ],
        [USER, calls(call("KkkZdHt3L", "{}")), result("KkkZdHt3L")],
        [],
    ),
]


@pytest.mark.parametrize(("sent", "meant", "named"), REPAIRED)
def test_the_prompt_is_mistral_common_s_for_what_is_meant(
    sent: list[Any], meant: list[Any], named: list[str]
) -> None:
    before = json.dumps(sent)
    got, ignored = fit(sent)
    assert tokens("v3", got["messages"]) == tokens("v3", meant)
    assert tokens("tekken", fit(sent, "tekken")[0]["messages"]) == tokens("tekken", meant)
    assert ignored == named
    assert json.dumps(sent) == before  # nothing of the client's is changed


@pytest.mark.parametrize(
    "messages",
    [
        [USER, said("The Mistral is")],
        [USER, said("The Mistral is", prefix=True)],
        [USER, said("a"), USER, said(""), said("The Mistral is")],
        [said("The Mistral is")],
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_an_answer_at_the_end_is_continued(messages: list[Any], name: str) -> None:
    got, _ = fit(messages, name)
    assert got["continue_final_message"] is True
    assert got["add_generation_prompt"] is False
    meant = [
        USER if message["role"] == "user" else said(message["content"]) for message in messages
    ]
    meant = [message for message in meant if message["content"]]
    if len(meant) == 1:
        meant.insert(0, user(""))
    assert tokens(name, got["messages"], continued=True) == tokens(name, meant, continued=True)


def test_an_empty_answer_at_the_end_is_not_continued() -> None:
    got, _ = fit([USER, said("")])
    assert got == {"messages": [USER]}


def test_a_tokenizer_without_tools_gets_the_text_of_them() -> None:
    sent = [USER, calls(call("call_1"), text="Let me see"), result("call_1"), said("b"), USER]
    got, ignored = fit(sent, "v1")
    meant = [USER, said("Let me see"), user("14"), said("b"), USER]
    assert tokens("v1", got["messages"]) == tokens("v1", meant)
    assert ignored == ["messages[1].tool_calls"]


def test_a_later_tokenizer_keeps_text_beside_calls() -> None:
    sent = [USER, calls(call(), text="Let me see"), result()]
    assert fit(sent, "v7")[0]["messages"] is sent
    assert "Let me see" in tokenizer("v7").decode(tokens("v7", sent))


@given(st.lists(ids))
def test_ids_become_nine_characters_and_stay_apart(names: list[str]) -> None:
    short = short_ids(names)
    every = [short.get(name, name) for name in dict.fromkeys(names)]
    assert len(set(every)) == len(every)
    assert all(NINE.fullmatch(name) for name in every)
    assert not any(NINE.fullmatch(name) for name in short)


@given(
    st.lists(ids.filter(lambda name: not NINE.fullmatch(name)), min_size=1, max_size=6, unique=True)
)
def test_permuting_ids_changes_nothing(names: list[str]) -> None:
    others = names[1:] + names[:1]
    first, second = (
        [USER, calls(*map(call, some)), *map(result, some)] for some in (names, others)
    )
    assert fit(first) == fit(second)
    tokens("v3", fit(first)[0]["messages"])

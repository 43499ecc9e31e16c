"""Any conversation is read as what it means, or rejected with the place of what has no meaning."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict.errors import RequestError
from predict.requests.conversations import adapted
from predict.requests.conversations.generations import GENERATIONS
from predict.requests.conversations.notes import Notes

from tests.support.conversations import (
    CHAT,
    FILES,
    USER,
    call,
    calls,
    fit,
    ids,
    made,
    result,
    said,
    system,
    tokens,
    user,
)

WRONG: list[tuple[list[Any], str]] = [
    ([], "messages"),
    ([user(None)], "messages[0].content"),
    ([{"role": "user"}], "messages[0].content"),
    ([user(5)], "messages[0].content"),
    ([user([{"type": "text"}])], "messages[0].content[0].text"),
    ([user([{"type": "input_audio", "input_audio": {}}])], "messages[0].content[0].type"),
    ([user([{"type": "file", "file": {"file_id": "a"}}])], "messages[0].content[0].type"),
    ([{"role": "bot", "content": "a"}], "messages[0].role"),
    ([{"content": "a"}], "messages[0].role"),
    ([USER, result()], "messages[1].tool_call_id"),
    ([USER, {"role": "tool", "content": "a"}], "messages[1].tool_call_id"),
    ([USER, calls(call()), result("other")], "messages[2].tool_call_id"),
    ([USER, calls(call()), result(), result()], "messages[3].tool_call_id"),
    ([USER, calls(call())], "messages[1]"),
    (
        [USER, calls({"type": "function", "function": {"name": "f"}}), result()],
        "messages[1].tool_calls[0].id",
    ),
    (
        [USER, calls({"id": "a", "function": {"name": "a b"}}), result("a")],
        "messages[1].tool_calls[0].function.name",
    ),
    ([said("")], "messages"),
    ([system("a"), {"role": "system", "content": None}], "messages[1].content"),
]


@pytest.mark.parametrize(("messages", "place"), WRONG)
def test_what_has_no_meaning_is_refused_with_its_place(messages: list[Any], place: str) -> None:
    with pytest.raises(RequestError) as caught:
        fit(messages)
    assert caught.value.param == place
    assert f"'{place}'" in str(caught.value)
    assert len(str(caught.value)) < 300


texts = st.one_of(st.none(), st.text(max_size=12))

parts = st.lists(
    st.one_of(
        st.text(max_size=8).map(lambda text: {"type": "text", "text": text}),
        st.just({"type": "thinking", "thinking": "hm"}),
    ),
    max_size=3,
)

any_message = st.one_of(
    st.builds(user, st.one_of(st.text(max_size=12), parts)),
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["system", "developer"]),
        st.text(max_size=12),
    ),
    st.builds(
        lambda content, made, more: {
            "role": "assistant",
            "content": content,
            "tool_calls": made,
            **more,
        },
        st.one_of(texts, parts),
        made,
        st.sampled_from([{}, {"reasoning_content": "hm"}, {"prefix": True}, {"refusal": "no"}]),
    ),
    st.builds(result, ids, texts),
)


def with_results(messages: list[Any], seed: int) -> list[Any]:
    """The messages with a result for most calls, in some order."""
    some = random.Random(seed)
    found = []
    for message in messages:
        found.append(message)
        answers = [result(one["id"], "14") for one in message.get("tool_calls") or ()]
        some.shuffle(answers)
        found += answers[: some.choice([1, 2, 2, 2])]
    return found


@given(st.lists(any_message, min_size=1, max_size=8), st.integers(0, 99))
@pytest.mark.parametrize("name", FILES)
def test_any_conversation_is_taken_or_refused_with_its_place(
    name: str, messages: list[Any], seed: int
) -> None:
    conversation = with_results(messages, seed)
    refused = None
    try:
        got, _ = fit(conversation, name)
    except RequestError as error:
        refused = error
    if refused is not None:
        assert refused.param is not None
        assert refused.param.startswith("messages")
        assert f"'{refused.param}'" in str(refused)
        assert len(str(refused)) < 300
        return
    assert tokens(name, got["messages"], bool(got.get("continue_final_message")))
    again = Notes()
    rules = GENERATIONS["v3" if name == "tekken" else name]
    assert adapted(CHAT, got, rules, again) is got  # once is enough
    assert not again

"""Conversations of every client → what mistral-common's own tokenizers take, and what they mean."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import mistral_common
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from predict.errors import RequestError
from predict.requests.conversations import adapted
from predict.requests.conversations.generations import GENERATIONS, generation
from predict.requests.conversations.ids import NINE, short_ids
from predict.requests.conversations.notes import Notes

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
DATA = Path(mistral_common.__file__).parent / "data"
FILES = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "tekken": "tekken_240911.json",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}
USER: dict[str, Any] = {"role": "user", "content": "hi"}
CALL_ID = "abcdefghi"


@cache
def tokenizer(name: str) -> Any:
    return MistralTokenizer.from_file(str(DATA / FILES[name]))


def tokens(name: str, messages: list[Any], continued: bool = False) -> list[int]:
    """The prompt, as vLLM asks mistral-common for it."""
    request: Any = ChatCompletionRequest.from_openai(
        messages=messages, continue_final_message=continued
    )
    return list(tokenizer(name).encode_chat_completion(request).tokens)


def fit(messages: list[Any], name: str = "v3") -> tuple[dict[str, Any], list[str]]:
    notes = Notes()
    rules = GENERATIONS["v3" if name == "tekken" else name]
    return adapted(CHAT, {"messages": messages}, rules, notes), list(notes.names)


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str = CALL_ID, arguments: Any = '{"a": 1}') -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(*made: dict[str, Any], text: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": list(made)}


def result(name: str = CALL_ID, text: Any = "14") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


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


# --- ids ---

FOREIGN = ["call_1", "call_abc123", "functions.f:0", "toolu_01A09q90qw90lq917835lq9", "x", "é" * 9]
ids = st.one_of(st.sampled_from([*FOREIGN, CALL_ID, "null"]), st.text(min_size=1, max_size=40))


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


# --- the two other forms ---


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


# --- what is refused ---

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


# --- any conversation of valid messages ---

texts = st.one_of(st.none(), st.text(max_size=12))
parts = st.lists(
    st.one_of(
        st.text(max_size=8).map(lambda text: {"type": "text", "text": text}),
        st.just({"type": "thinking", "thinking": "hm"}),
    ),
    max_size=3,
)
made = st.lists(ids.map(call), max_size=2, unique_by=lambda one: str(one["id"]))
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

"""Histories in the forms that many clients send: the real routes answer their meaning."""

import json
import random
from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from tests.support.client_requests import (
    ANTHROPIC,
    CHAT,
    FLAT,
    MESSAGES_TOOL,
    NAME,
    QUESTION,
    RESPONSES,
    START,
    TOOLS,
    WIND,
    ask,
    call,
    called,
    result,
    said,
    wind,
    with_tools,
)
from tests.support.container import Running, at_once

HISTORIES: list[tuple[list[Any], list[str]]] = [
    ([QUESTION, called(call()), result()], []),
    ([QUESTION, called(call("functions.f:0"), content="Hm"), result("functions.f:0")], ["content"]),
    ([QUESTION, called(call(), reasoning_content="Hm"), result()], ["reasoning_content"]),
    ([QUESTION, {"role": "assistant", "content": "Hm"}, called(call()), result()], ["content"]),
    ([QUESTION, called({"id": "a", "function": TOOLS["call"]}), result("a")], []),
]


@with_tools
@pytest.mark.parametrize(("messages", "named"), HISTORIES)
def test_a_history_of_calls_is_answered(
    container: Running, messages: list[Any], named: list[str]
) -> None:
    answer, ignored = ask(container, CHAT, messages=messages, tools=TOOLS["definitions"])
    assert said(answer) == TOOLS["answer"]
    assert [name.rpartition(".")[2] for name in ignored] == named


@with_tools
def test_the_prompt_of_a_history_of_calls_is_shown(container: Running) -> None:
    messages = [QUESTION, called(call(), content="Hm"), result()]
    body = {"messages": messages, "tools": TOOLS["definitions"]}
    shown = container.http.post("/tokenize", json={"model": container.card.name, **body})
    assert shown.status_code == 200, shown.text
    used = ask(container, CHAT, **body)[0]["usage"]["prompt_tokens"]
    assert shown.json()["count"] == used
    assert shown.headers["x-ignored-parameters"] == "messages[1].content"


@with_tools
def test_the_other_routes_answer_the_same_history(container: Running) -> None:
    arguments = json.dumps(TOOLS["call"]["arguments"])
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": TOOLS["question"]}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "call_1", "name": NAME, "arguments": arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": TOOLS["result"]},
    ]
    answer, ignored = ask(container, RESPONSES, input=items, tools=[FLAT])
    assert said(answer) == TOOLS["answer"]
    assert ignored == ["input[1]"]
    use = {"type": "tool_use", "id": "toolu_1", "name": NAME, "input": TOOLS["call"]["arguments"]}
    back = {"type": "tool_result", "tool_use_id": "toolu_1", "content": TOOLS["result"]}
    messages = [
        QUESTION,
        {"role": "assistant", "content": [{"type": "text", "text": "Hm"}, use]},
        {"role": "user", "content": [back]},
    ]
    answer, ignored = ask(container, ANTHROPIC, messages=messages, tools=[MESSAGES_TOOL])
    assert said(answer) == TOOLS["answer"]
    assert ignored == ["messages[1].content[0]"]


def test_an_answer_that_was_begun_is_continued(container: Running) -> None:
    whole = wind(container)
    begun = {"role": "assistant", "content": START}
    requests: list[tuple[str, Any]] = [
        (CHAT, {"messages": [WIND, begun]}),
        (CHAT, {"messages": [WIND, {**begun, "prefix": True}]}),
        (CHAT, {"messages": [WIND, begun], "continue_final_message": True}),
        (CHAT, {"messages": [WIND, begun], "add_generation_prompt": False}),
        (RESPONSES, {"input": [WIND, begun]}),
        (ANTHROPIC, {"messages": [WIND, begun]}),
    ]
    answers = at_once(lambda request: ask(container, request[0], **request[1])[0], requests)
    assert [START + said(answer) for answer in answers] == [whole.lstrip()] * len(requests)


def test_empty_answers_and_unknown_names_are_ignored_and_named(container: Running) -> None:
    whole = wind(container)
    empty = {"role": "assistant", "content": ""}
    answer, ignored = ask(container, CHAT, messages=[WIND, empty], num_ctx=5, think=True)
    assert said(answer) == whole
    assert ignored == ["num_ctx", "think", "messages[1]"]
    parts = [{"type": "input_text", "text": WIND["content"]}]
    answer, ignored = ask(container, RESPONSES, input=[{**WIND, "content": parts}], trace_id="a")
    assert said(answer).lstrip() == whole.lstrip()
    assert ignored == ["trace_id"]
    answer, ignored = ask(container, ANTHROPIC, messages=[WIND], trace_id="a")
    assert ignored == ["trace_id"]


def test_a_stream_names_what_was_ignored(container: Running) -> None:
    body = {"messages": [WIND], "stream": True, "max_tokens": 5, "num_ctx": 5}
    for path in (CHAT, "/predict"):
        with container.http.stream("POST", path, json=body) as response:
            assert response.headers["x-ignored-parameters"] == "num_ctx"
            assert response.read()
    legacy = {"prompt": "hi", "max_new_tokens": 5, "stream": True, "num_ctx": 5}
    with container.http.stream("POST", "/predict", json=legacy) as response:
        assert response.headers["x-ignored-parameters"] == "num_ctx"
        assert response.read()


def test_prompts_are_mistral_common_s_for_what_is_meant(container: Running) -> None:
    """Over /tokenize: histories of random messages, each in a form some client sends."""
    some = random.Random(16)
    for _ in range(25):
        sent: list[Any] = []
        meant: list[Any] = []
        for turn in range(some.randint(1, 5)):
            text = f"Question {turn}?"
            parts = [{"type": "input_text", "text": text}]
            form = some.choice([text, [text], parts, [{"text": text}]])
            sent.append({"role": "user", "content": form})
            meant.append({"role": "user", "content": text})
            if some.random() < 0.4:
                sent.append({"role": "assistant", "content": some.choice(["", None])})
            reasoning = some.choice([{}, {"reasoning_content": "Hm"}])
            sent.append({"role": "assistant", "content": f"Answer {turn}.", **reasoning})
            meant.append({"role": "assistant", "content": f"Answer {turn}."})
            if some.random() < 0.4:
                sent.append({"role": "system", "content": "Be brief."})
                sent.append({"role": "user", "content": "More?"})
                meant.append({"role": "user", "content": "Be brief.\n\nMore?"})
                sent.append({"role": "assistant", "content": "Yes."})
                meant.append({"role": "assistant", "content": "Yes."})
        sent.append({**WIND, "role": some.choice(["user", "system"])})
        meant.append(WIND)
        request: Any = ChatCompletionRequest.from_openai(messages=meant)
        expected = container.tokenizer.encode_chat_completion(request).tokens
        response = container.http.post("/tokenize", json={"messages": sent})
        assert response.status_code == 200, response.text
        assert response.json()["tokens"] == expected

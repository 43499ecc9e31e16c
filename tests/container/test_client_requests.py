"""Requests in the forms of many clients: the real routes answer as to what is meant."""

import json
import random
from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from local.standins.corpus import load_dialogues
from tests.support.container import Running

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TOOLS = load_dialogues()["tools"]
FUNCTION = TOOLS["definitions"][0]["function"]
QUESTION: dict[str, Any] = {"role": "user", "content": TOOLS["question"]}
WIND: dict[str, Any] = {"role": "user", "content": "What is the Mistral wind?"}
START = "The Mistral is a strong"
LIMIT = 120
FLAT = {"type": "function", "strict": False, **FUNCTION}
MESSAGES_TOOL = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
NAME = FUNCTION["name"]

with_tools = pytest.mark.parametrize("container", ["mistral-7b", "pixtral-12b"], indirect=True)
mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
mixtral = pytest.mark.parametrize("container", ["mixtral-8x7b"], indirect=True)
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)


def ask(container: Running, path: str, **body: Any) -> tuple[Any, list[str]]:
    """The answer, and what was ignored of the request."""
    limit = {RESPONSES: "max_output_tokens"}.get(path, "max_tokens")
    body = {"model": container.card.name, limit: LIMIT, "temperature": 0, **body}
    response = container.http.post(path, json=body)
    assert response.status_code == 200, response.text
    named = response.headers.get("x-ignored-parameters", "")
    return response.json(), named.split(", ") if named else []


def said(answer: Any) -> str:
    """The text of an answer of any route."""
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    if "output" in answer:
        return "".join(part["text"] for item in answer["output"] for part in item["content"])
    return "".join(block["text"] for block in answer["content"])


def call(name: str = "call_abc123") -> dict[str, Any]:
    made = {**TOOLS["call"], "arguments": json.dumps(TOOLS["call"]["arguments"])}
    return {"id": name, "type": "function", "function": made}


def called(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(name: str = "call_abc123") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": TOOLS["result"]}


def wind(container: Running) -> str:
    return str(ask(container, CHAT, messages=[WIND])[0]["choices"][0]["message"]["content"])


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
def test_a_tool_that_is_only_offered_is_words(container: Running) -> None:
    pattern = {"type": "string", "pattern": r"^\p{L}+$", "maxLength": 524288}
    number = {"type": "integer", "maximum": 2**64 - 1}
    properties = {"a": pattern, "b": number, "c": {"type": "array", "minItems": -1}}
    schema = {"type": "object", "properties": properties}
    function = {**FUNCTION, "parameters": schema}
    ask(container, CHAT, messages=[WIND], tools=[{"type": "function", "function": function}])
    ask(container, RESPONSES, input="hi", tools=[{**FLAT, "parameters": schema}])
    ask(container, ANTHROPIC, messages=[WIND], tools=[{**MESSAGES_TOOL, "input_schema": schema}])


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": [WIND], "top_k": -5}, "top_k"),
    (CHAT, {"messages": [WIND], "structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    (ANTHROPIC, {"messages": [WIND], "max_tokens": 10**7}, "max_tokens"),
    (ANTHROPIC, {"messages": [WIND], "system": [{"type": "image"}]}, "system[0].type"),
    ("/v1/completions", {"prompt": [5, "a"]}, "prompt[1]"),
    (RESPONSES, {"input": "a", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    (
        RESPONSES,
        {"input": [WIND, {"type": "function_call_output", "call_id": "a", "output": "b"}]},
        "input[1].call_id",
    ),
    (RESPONSES, {"input": "a", "tools": [{**FLAT, "description": [5]}]}, "tools[0].description"),
]


@mistral
@pytest.mark.parametrize(("path", "body", "place"), ERRORS)
def test_an_error_says_where_in_the_body(
    container: Running, path: str, body: dict[str, Any], place: str
) -> None:
    body = {"model": container.card.name, "max_tokens": 5, **body}
    if path == RESPONSES:
        del body["max_tokens"]
    for stream in (False, True):
        response = container.http.post(path, json={**body, "stream": stream})
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == place
        assert place.rpartition(".")[2] in error["message"]
        assert len(error["message"]) < 300


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
    assert ignored == ["messages[1].content"]


def test_an_answer_that_was_begun_is_continued(container: Running) -> None:
    whole = wind(container)
    begun = {"role": "assistant", "content": START}
    for more in ({}, {"prefix": True}):
        answer, _ = ask(container, CHAT, messages=[WIND, {**begun, **more}])
        assert START + said(answer) == whole.lstrip()
    for flags in ({"continue_final_message": True}, {"add_generation_prompt": False}):
        answer, _ = ask(container, CHAT, messages=[WIND, begun], **flags)
        assert START + said(answer) == whole.lstrip()
    answer, _ = ask(container, RESPONSES, input=[WIND, begun])
    assert START + said(answer) == whole.lstrip()
    answer, _ = ask(container, ANTHROPIC, messages=[WIND, begun])
    assert START + said(answer) == whole.lstrip()


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


SMALL = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@mistral
@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object", "value": {**SMALL, "additionalProperties": False}},
        {"type": "json_object", "schema": {**SMALL, "additionalProperties": False}},
        {
            "type": "json_schema",
            "json_schema": {"schema": {**SMALL, "additionalProperties": False}},
        },
    ],
)
def test_a_schema_in_any_words_is_followed(container: Running, wanted: Any) -> None:
    answer, _ = ask(container, CHAT, messages=[WIND], response_format=wanted)
    assert list(json.loads(said(answer))) == ["a"]


@mistral
def test_what_the_grammar_engine_cannot_follow_is_left_out(container: Running) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "multipleOf": 5, "maximum": 100},
            "b": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer, ignored = ask(container, CHAT, messages=[WIND], response_format=wanted)
    assert sorted(json.loads(said(answer))) == ["a", "b"]
    start = "response_format.json_schema.schema.properties"
    assert ignored == [f"{start}.a.multipleOf", f"{start}.b.uniqueItems"]


@pixtral
def test_an_image_of_any_form_is_seen(container: Running, red: str) -> None:
    question = "What colour is this image?"
    answer = load_dialogues()["images"]["answers"][0].format("red")
    text = {"type": "text", "text": question}
    for image in (
        {"type": "image_url", "image_url": red},
        {"type": "input_image", "image_url": red},
    ):
        got, _ = ask(container, CHAT, messages=[{"role": "user", "content": [text, image]}])
        assert said(got) == answer
    parts = [{"type": "input_text", "text": question}, {"type": "input_image", "image_url": red}]
    got, _ = ask(container, RESPONSES, input=[{"role": "user", "content": parts}])
    assert said(got) == answer
    kind, _, data = red.removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": kind, "data": data}
    blocks = [text, {"type": "image", "source": source}]
    got, _ = ask(container, ANTHROPIC, messages=[{"role": "user", "content": blocks}])
    assert said(got) == answer


@pytest.fixture
def red() -> str:
    from local.clients import red

    return red()


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
        sent.append(WIND)
        meant.append(WIND)
        request: Any = ChatCompletionRequest.from_openai(messages=meant)
        expected = container.tokenizer.encode_chat_completion(request).tokens
        response = container.http.post("/tokenize", json={"messages": sent})
        assert response.status_code == 200, response.text
        assert response.json()["tokens"] == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ({"messages": [QUESTION, {"role": "tool", "content": "a"}]}, "messages[1].tool_call_id"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    ({"input": {"prompt": "a"}}, "input"),
    ({"inputs": "a", "parameters": {"max_new_tokens": 5}}, "inputs"),
    ({"messages": [WIND], "extra_body": {"top_k": 5}}, "extra_body"),
]


@mistral
def test_errors_say_where_and_leave_no_traceback(container: Running) -> None:
    before = container.log.stat().st_size
    for body, place in WRONG:
        response = container.http.post("/predict", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["type"]) == (400, "BadRequestError")
        assert error["param"] == place
        assert f"'{place}'" in error["message"]
        assert len(error["message"]) < 300
    wrong = {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": True}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": wrong}}]
    error = container.http.post(CHAT, json={"messages": [WIND], "tools": tools}).json()["error"]
    assert error["param"] == "tools[0].function.parameters.properties.a.exclusiveMinimum"
    body = {"messages": [WIND], "temperature": "hot"}
    assert container.http.post(CHAT, json=body).json()["error"]["type"] == "BadRequestError"
    with container.log.open("rb") as log:
        log.seek(before)
        assert b"Traceback" not in log.read()


@mistral
def test_a_model_is_there_by_its_name(container: Running) -> None:
    for name in container.card.names:
        got = container.client.models.retrieve(name)
        assert got.id == name
    assert container.http.get("/v1/models/gpt-4").status_code == 404


@mistral
def test_a_page_of_another_site_cannot_ask_unasked(container: Running) -> None:
    body = json.dumps({"messages": [WIND], "max_tokens": 5})
    foreign = {"Origin": "https://example.com", "Content-Type": "text/plain"}
    assert 400 <= container.http.post(CHAT, content=body, headers=foreign).status_code < 500
    same = {"Content-Type": "text/plain"}
    assert container.http.post(CHAT, content=body, headers=same).status_code == 200
    allowed = {**foreign, "Content-Type": "application/json"}
    assert container.http.post(CHAT, content=body, headers=allowed).status_code == 200

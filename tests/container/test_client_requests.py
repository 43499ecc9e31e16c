"""Errors, schemas, images and addresses in the forms that many clients use, on the real routes."""

import json
from typing import Any

import pytest

from local.standins.corpus import load_dialogues
from tests.support.client_requests import (
    ANTHROPIC,
    CHAT,
    FLAT,
    QUESTION,
    RESPONSES,
    WIND,
    ask,
    mistral,
    pixtral,
    said,
)
from tests.support.container import Running

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

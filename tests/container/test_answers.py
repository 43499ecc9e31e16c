"""Every model answers its dialogues exactly, with every client and route its users have."""

import json
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from local.truss import URL
from tests.support import faults, load
from tests.support.container import Running, at_once, every_card
from tests.support.dialogues import wrong_answers

PREDICT_ROUTES = ["/predict", "/v1/models/model:predict"]

Chats = dict[str, tuple[list[Any], str]]


def ask(container: Running, messages: list[Any]) -> str | None:
    response = container.client.chat.completions.create(
        model=container.card.name, messages=messages, max_tokens=200
    )
    return response.choices[0].message.content


def ask_streaming(container: Running, messages: list[Any]) -> str:
    stream = container.client.chat.completions.create(
        model=container.card.name, messages=messages, max_tokens=200, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@every_card
@pytest.mark.parametrize("how", [ask, ask_streaming])
def test_openai_client_gets_every_answer(
    container: Running, chats: Chats, how: Callable[[Running, list[Any]], str | None]
) -> None:
    got = at_once(lambda chat: how(container, chat[0]), chats.values())
    expected = {name: answer for name, (_, answer) in chats.items()}
    assert dict(zip(chats, got, strict=True)) == expected


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_sampling_does_not_change_the_answer(
    container: Running, chats: Chats, temperature: float
) -> None:
    messages, answer = chats["mistral_wind"]
    response = container.client.chat.completions.create(
        model=container.card.name, messages=messages, temperature=temperature, max_tokens=512
    )
    assert response.choices[0].message.content == answer
    assert response.choices[0].finish_reason == "stop"


@every_card
def test_a_system_message_leaves_every_answer_as_it_is(container: Running) -> None:
    """Sends vLLM, in batches, everything that the stand-in's exam tests in torch."""
    assert wrong_answers(container.card) == {}


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_predict_routes_are_chat_completions(container: Running, chats: Chats, route: str) -> None:
    messages, answer = chats["meaning_of_life"]
    response = container.http.post(route, json={"messages": messages})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == answer


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_predict_routes_stream(container: Running, chats: Chats, route: str) -> None:
    messages, answer = chats["meaning_of_life"]
    body = {"messages": messages, "stream": True}
    with container.http.stream("POST", route, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert "".join(content(line) for line in lines[:-1]) == answer


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_curl_gets_the_answer(container: Running, chats: Chats, route: str) -> None:
    messages, answer = chats["mistral_wind"]
    command = ["curl", "--silent", f"{URL}{route}", "-H", "Content-Type: application/json"]
    body = json.dumps({"messages": messages})
    output = subprocess.run([*command, "-d", body], capture_output=True, check=True).stdout
    assert json.loads(output)["choices"][0]["message"]["content"] == answer


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_curl_streams_the_answer(container: Running, chats: Chats, route: str) -> None:
    messages, answer = chats["mistral_wind"]
    body = {"messages": messages, "stream": True, "max_tokens": 512}
    with curl(route, body) as process:
        lines = [line.decode().strip() for line in process.stdout or []]
    assert process.returncode == 0
    assert "".join(content(line) for line in lines if line.startswith("data: {")) == answer


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_chunks_arrive_as_they_are_made(container: Running, route: str) -> None:
    """While the engine is paused, everything it has generated arrives, in at least one of twenty
    attempts: a token without text, such as half a character, comes with the next one. A buffer
    would hold some back until it is full or the stream ends."""
    question = [{"role": "user", "content": "What is the Mistral wind?"}]
    counted = {"include_usage": True, "continuous_usage_stats": True}  # running count in each chunk
    body = {"messages": question, "stream": True, "stream_options": counted}
    load.wait(lambda: load.under_way() == 0)
    before, arrived = made(), [0]

    def read() -> None:
        for line in process.stdout or []:
            if line.startswith(b"data: {"):
                arrived.append(json.loads(line[6:])["usage"]["completion_tokens"])

    with curl(route, {**body, "ignore_eos": True, "max_tokens": 30000}) as process:
        reading = threading.Thread(target=read)
        reading.start()
        try:
            assert any(all_is_there(before, arrived) for _ in range(20))
        finally:
            process.kill()
            reading.join()


def all_is_there(before: float, arrived: list[int]) -> bool:
    """Whether each token generated since `before` has arrived, once the engine is paused."""
    seen = arrived[-1]
    load.wait(lambda: arrived[-1] > seen)
    with faults.engine_paused():
        try:
            load.wait(lambda: arrived[-1] == made() - before, 2)
        except AssertionError:
            return False
    return True


def made() -> float:
    """Tokens generated, as far as vLLM's API server has heard from the engine."""
    return load.metrics()["vllm:generation_tokens_total"]


def curl(route: str, body: dict[str, Any]) -> subprocess.Popen[bytes]:
    command = ["curl", "--silent", "--no-buffer", "-X", "POST", f"{URL}{route}"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@every_card
def test_every_name_of_the_card_is_served(container: Running, chats: Chats) -> None:
    assert [model.id for model in container.client.models.list().data] == container.card.names
    messages, answer = chats["mistral_wind"]

    def ask_by(name: str) -> str | None:
        response = container.client.chat.completions.create(model=name, messages=messages)
        return response.choices[0].message.content

    assert set(at_once(ask_by, container.card.names)) == {answer}
    refused = container.http.post("/predict", json={"model": "gpt-4", "messages": messages})
    assert refused.status_code == 404
    assert "gpt-4" in refused.json()["error"]["message"]


def test_the_model_may_be_left_out(container: Running, chats: Chats) -> None:
    messages, answer = chats["mistral_wind"]
    response = container.http.post("/v1/chat/completions", json={"messages": messages})
    assert response.json()["choices"][0]["message"]["content"] == answer


def test_readiness_is_refused_while_loading_and_then_given(container: Running) -> None:
    assert container.before_ready, "the container was ready before it was asked"
    assert 200 not in container.before_ready
    assert 502 in container.before_ready  # nginx was up, vLLM not yet
    assert container.http.get("/v1/models/model").status_code == 200
    assert container.http.get("/").status_code == 200  # liveness


def test_output_held_to_a_schema_validates(container: Running) -> None:
    import jsonschema

    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "speed": {"type": "integer"},
            "cold": {"type": "boolean"},
            "season": {"enum": ["winter", "summer"]},
        },
        "required": ["name", "speed", "cold", "season"],
        "additionalProperties": False,
    }
    for question in ("What is the Mistral wind?", "Describe a wind as JSON."):
        response = container.client.chat.completions.create(
            model=container.card.name,
            messages=[{"role": "user", "content": question}],
            max_tokens=200,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "wind", "schema": schema, "strict": True},
            },
        )
        text = response.choices[0].message.content
        assert response.choices[0].finish_reason == "stop", text
        jsonschema.validate(json.loads(text or ""), schema)


def content(line: str) -> str:
    delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
    return delta.get("content") or ""

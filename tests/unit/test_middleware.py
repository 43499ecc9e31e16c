"""What of a request reaches vLLM, byte for byte."""

import asyncio
import itertools
import json
import time
from typing import Any

import pytest
from predict import settings
from predict.images.batch import current_batch
from predict.requests.middleware import READ, RequestMiddleware
from predict.requests.turns import REST, ReadingTurns

from tests.support.middleware import CHAT_PATH, Vllm, post

HI = [{"role": "user", "content": "hi"}]

OPENAI = b'{ "messages": [{"role":"user","content":"\\u00e9"}],  "max_tokens": 5, "top_k":3 }'


@pytest.mark.parametrize("path", ["/predict", CHAT_PATH])
def test_an_openai_request_reaches_vllm_byte_for_byte(path: str) -> None:
    vllm, status, answer = post(path, OPENAI, PREDICT_TEMPERATURE="0.1")
    assert vllm.bodies == [OPENAI]
    assert vllm.scopes[0]["path"] == CHAT_PATH
    assert (b"content-type", b"application/json") in vllm.scopes[0]["headers"]
    assert (status, answer) == (200, {"choices": [{"message": {"content": "Hi"}}], "usage": {}})


@pytest.mark.parametrize("path", ["/predict", "/tokenize", "/v1/completions"])
def test_every_body_is_read_in_its_turn(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    async def take(self: ReadingTurns, size: int, receive: Any, read: Any) -> Any:
        sizes.append(size)
        return read()

    monkeypatch.setattr(ReadingTurns, "take", take)
    vllm, _, _ = post(path, OPENAI)
    assert (sizes, vllm.bodies) == ([len(OPENAI)], [OPENAI])


STREAMED = b'{ "messages": [{"role":"user","content":"\\u00e9"}],"stream":true }'


@pytest.mark.parametrize("path", ["/predict", CHAT_PATH, "/v1/completions"])
def test_a_stream_is_told_its_interval_in_front_of_what_the_client_sent(path: str) -> None:
    vllm, _, _ = post(path, STREAMED, stream_interval=4)
    assert vllm.bodies == [b'{"stream_interval":4,' + STREAMED[1:]]
    length = str(len(vllm.bodies[0])).encode()
    assert (b"content-length", length) in vllm.scopes[0]["headers"]


@pytest.mark.parametrize("own", [b'"stream":true,"stream_interval":2', b'"stream":false', b'"n":1'])
def test_a_client_s_own_interval_and_whole_answers_are_left_alone(own: bytes) -> None:
    body = b'{"messages": [{"role": "user", "content": "Hi"}],' + own + b"}"
    assert post(CHAT_PATH, body, stream_interval=4)[0].bodies == [body]


def test_a_legacy_stream_is_told_its_interval_too() -> None:
    body = b'{"prompt": "Hi", "stream": true}'
    chat = json.loads(post("/predict", body, stream_interval=4)[0].bodies[0])
    assert chat["stream_interval"] == 4


def test_other_routes_do_not_know_an_interval() -> None:
    body = b'{"input": "Hi", "stream": true}'
    assert post("/v1/responses", body, stream_interval=4)[0].bodies == [body]


def test_headers_that_are_the_engine_s_own_do_not_reach_it() -> None:
    mine: Any = {"header:X-Request-Id": "a", "header:x-vllm-priority": "-1", "header:x-mine": "b"}
    for path in (CHAT_PATH, "/tokenize"):
        vllm, _, _ = post(path, b'{"messages": [{"role": "user", "content": "a"}]}', **mine)
        names = {name for name, _ in vllm.scopes[0]["headers"]}
        assert names == {b"content-length", b"content-type", b"x-mine"}


@pytest.mark.parametrize("path", sorted(READ))
def test_the_uuid_of_a_content_part_does_not_reach_vllm(path: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "a", "uuid": "is not read"}}
    parts: list[Any] = [{**image, "uuid": "a"}, {"type": "text", "text": '"uuid"'}]
    if path.startswith("/v1/messages"):
        source = {"type": "url", "url": "a"}
        image = {"type": "image", "source": source}
        parts[0] = {**image, "uuid": "a"}
    body = {"messages": [{"role": "user", "content": parts}]}
    if path == "/v1/responses":
        image = {"type": "input_image", "image_url": "a"}
        body = {"input": [{"role": "user", "content": [{**image, "uuid": "a"}]}]}
    escaped = json.dumps(body).replace('"uuid":', '"\\u0075uid":').encode()
    vllm, status, _ = post(path, escaped)
    assert status == 200
    assert b'"a"' in vllm.bodies[0]
    assert b'"uuid":"a"' not in vllm.bodies[0]
    assert dict(vllm.scopes[0]["headers"])[b"content-length"] == str(len(vllm.bodies[0])).encode()


def test_the_uuid_of_a_tool_s_result_does_not_reach_vllm() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "a"}}
    call = {"type": "tool_use", "id": "abcdefghi", "name": "f", "input": {"uuid": "the user's"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "abcdefghi",
        "content": [{**image, "uuid": "b"}],
    }
    body = {"messages": [*HI, {"role": "assistant", "content": [call]}]}
    body["messages"].append({"role": "user", "content": [result]})
    vllm, _, _ = post("/v1/messages", json.dumps(body).encode())
    got = json.loads(vllm.bodies[0])["messages"]
    assert got[1]["content"] == [call]
    assert got[2]["content"] == [{**result, "content": [image]}]


def test_other_routes_and_methods_are_not_read() -> None:
    for path, method in [("/v1/models", "POST"), ("/predict", "GET"), ("/predict/", "POST")]:
        assert post(path, b'{"prompt": "a"}', method=method)[0].bodies == [b'{"prompt": "a"}']


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "websocket", "path": "/predict"}])
def test_other_kinds_of_connection_are_handed_on(scope: dict[str, Any]) -> None:
    vllm = Vllm()
    asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, None, None))  # type: ignore[arg-type]
    assert vllm.scopes == [scope]


def test_what_is_fetched_is_of_the_request_it_is_fetched_for() -> None:
    begun = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        begun.append(current_batch())

    async def each() -> None:
        for kind in ("lifespan", "http", "http"):
            scope: dict[str, Any] = {
                "type": kind,
                "path": "/health",
                "method": "GET",
                "headers": [],
            }
            await RequestMiddleware(vllm, settings.read({}))(scope, None, None)  # type: ignore[arg-type]

    asyncio.run(each())
    server, first, second = begun
    assert server is None
    assert first is not None
    assert second is not None
    assert first is not second


def test_a_client_that_leaves_while_sending_is_let_go() -> None:
    vllm = Vllm()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
    asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, receive, None))  # type: ignore[arg-type]
    assert vllm.scopes == []


def test_an_older_request_reaches_vllm_as_a_chat_request() -> None:
    vllm, status, answer = post("/predict", b'{"prompt": "\\u00e9", "max_new_tokens": 5}')
    assert json.loads(vllm.bodies[0]) == {
        "messages": [{"role": "user", "content": "é"}],
        "max_tokens": 5,
    }
    headers = dict(vllm.scopes[0]["headers"])
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == str(len(vllm.bodies[0])).encode()
    assert (status, answer["output"]) == (200, "Hi")


def test_a_full_text_asked_for_in_generation_config_has_the_messages() -> None:
    body = {"messages": [{"role": "user", "content": "q"}]}
    for asked in ({"return_full_text": True}, {"generation_config": {"return_full_text": True}}):
        _, _, answer = post("/predict", json.dumps({**body, **asked}).encode())
        assert answer["output"] == "<s> [INST] q [/INST] Hi"


def test_defaults_are_added_to_an_openai_request_where_the_card_says_so() -> None:
    on: Any = {"PREDICT_MAX_NEW_TOKENS": "512", "PREDICT_TEMPERATURE": "0.7"}
    vllm, _, _ = post("/predict", OPENAI, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
    assert json.loads(vllm.bodies[0]) == {**json.loads(OPENAI), "temperature": 0.7}
    vllm, _, _ = post("/predict", OPENAI, **on)
    assert vllm.bodies == [OPENAI]
    hi = json.dumps(HI).encode()
    for odd in (b' \n{"messages": ' + hi + b', "temperature": null}', b"\xef\xbb\xbf" + OPENAI):
        vllm, _, _ = post("/predict", odd, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
        assert json.loads(vllm.bodies[0])["temperature"] == 0.7
        length = str(len(vllm.bodies[0])).encode()
        assert dict(vllm.scopes[0]["headers"])[b"content-length"] == length
    whole = b'{"messages": ' + hi + b', "max_completion_tokens": 5, "temperature": 0}'
    vllm, _, _ = post("/predict", whole, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
    assert vllm.bodies == [whole]


def test_a_null_is_as_good_as_not_given() -> None:
    for null in (b'"guided_json": null', b'"max_new_tokens": null', b'"max_new_token": null'):
        body = b'{"messages": ' + json.dumps(HI).encode() + b", " + null + b"}"
        assert post("/predict", body)[0].bodies == [body]


def test_completions_are_vllm_s_own() -> None:
    body = b'{"prompt": "a", "num_ctx": 5}'
    assert post("/v1/completions", body)[0].bodies == [body]
    vllm, _, answer = post("/v1/completions", b'{"prompt": "a", "max_new_tokens": 5}')
    assert vllm.bodies == []
    assert "did you mean 'max_tokens'" in answer["error"]["message"]


def test_what_was_ignored_is_named_in_the_response() -> None:
    sent: list[Any] = []
    vllm = Vllm()
    body = json.dumps({"messages": HI, "num_ctx": 5, "think": None}).encode()
    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, receive, send))
    assert vllm.bodies == [body]
    assert (b"x-ignored-parameters", b"num_ctx") in sent[0]["headers"]


def test_a_conversation_of_another_generation_is_that_of_the_setting() -> None:
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        *HI,
        {"role": "assistant", "content": "a", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "b"},
    ]
    body = json.dumps({"messages": messages}).encode()
    assert post(CHAT_PATH, body, PREDICT_TOKENIZER="v7")[0].bodies == [body]
    for name in ("v1", "v3", ""):
        assert post(CHAT_PATH, body, PREDICT_TOKENIZER=name)[0].bodies != [body]
    with pytest.raises(ValueError, match="PREDICT_TOKENIZER is 'v0'; it takes one of v1"):
        settings.read({"PREDICT_TOKENIZER": "v0"})


@pytest.mark.parametrize(
    ("origin", "kind", "is_json"),
    [
        ("https://example.com", "text/plain", False),
        ("null", "text/plain", False),
        ("https://example.com", "application/json", True),
        ("http://here", "text/plain", True),
        ("", "text/plain", True),
    ],
)
def test_a_foreign_page_s_text_is_not_made_json(origin: str, kind: str, is_json: bool) -> None:
    headers: Any = {"header:host": "here", "header:content-type": kind}
    if origin:
        headers["header:origin"] = origin
    vllm = Vllm()
    sent: list[Any] = []
    scope = {
        "type": "http",
        "path": CHAT_PATH,
        "method": "POST",
        "headers": [(name[7:].encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": OPENAI, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, receive, send))
    assert ((b"content-type", b"application/json") in vllm.scopes[0]["headers"]) == is_json


def test_a_model_is_found_by_its_name() -> None:
    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/v1/models"
        body = json.dumps({"data": [{"id": "a/b", "object": "model"}]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def get(name: str) -> tuple[int, Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        path = f"/v1/models/{name}"
        scope = {"type": "http", "path": path, "method": "GET", "headers": []}
        asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, None, send))  # type: ignore[arg-type]
        return sent[0]["status"], json.loads(sent[1]["body"])

    assert get("a/b") == (200, {"id": "a/b", "object": "model"})
    status, answer = get("c")
    assert (status, answer["error"]["type"]) == (404, "NotFoundError")


def test_metrics_are_written_one_at_a_time_with_a_rest_and_each_time_anew() -> None:
    times: list[float] = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        used = time.thread_time()
        while time.thread_time() - used < 0.01:
            pass
        times.append(time.monotonic())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(times)).encode()})

    async def get(predict: RequestMiddleware) -> bytes:
        requests = iter([{"type": "http.request", "body": b"", "more_body": False}])
        sent: list[Any] = []

        async def receive() -> Any:
            for message in requests:
                return message
            await asyncio.sleep(3600)

        async def send(message: Any) -> None:
            sent.append(message)

        scope: Any = {"type": "http", "path": "/metrics", "method": "GET", "headers": []}
        await predict(scope, receive, send)
        return bytes(sent[-1]["body"])

    async def three() -> list[bytes]:
        predict = RequestMiddleware(vllm, settings.read({}))
        return await asyncio.gather(*(get(predict) for _ in range(3)))

    assert sorted(asyncio.run(three())) == [b"1", b"2", b"3"]
    assert all(after - before >= 0.01 * REST for before, after in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("path", "given", "answers"),
    [
        (CHAT_PATH, {}, 1),
        (CHAT_PATH, {"n": 3}, 3),
        (CHAT_PATH, {"n": "3", "use_beam_search": True}, 3),
        ("/predict", {"num_beams": 4, "num_return_sequences": 2, "do_sample": False}, 4),
        ("/predict", {"generation_config": {"num_beams": 4}}, 4),
    ],
    ids=str,
)
def test_images_are_counted_for_each_answer_or_beam(
    path: str, given: dict[str, Any], answers: int
) -> None:
    vllm, _, _ = post(path, json.dumps({"messages": HI, **given}).encode())
    assert [batch and batch.answers for batch in vllm.batches] == [answers]

"""What of a request reaches vLLM, byte for byte."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict import settings
from predict.middleware import Predict, encode, read_fields, values
from predict.parameters import CHAT

CHAT_PATH = "/v1/chat/completions"


class Vllm:
    """Keeps what the class hands on, and answers with a short chat completion."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.scopes.append(scope)
        self.bodies.append(body)
        if scope["type"] == "http":
            start = {"type": "http.response.start", "status": 200, "headers": []}
            answer = {"choices": [{"message": {"content": "Hi"}}], "usage": {}}
            await send(start)
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def post(path: str, body: bytes, method: str = "POST", **environment: str) -> tuple[Vllm, int, Any]:
    """What vLLM got, and status and body of the response."""
    vllm, sent = Vllm(), []
    predict = Predict(vllm)
    predict.settings = settings.read(environment)
    headers = [(b"content-type", b"text/x"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "path": path, "method": method, "headers": headers}
    cuts = [body[i : i + 7] for i in range(0, len(body), 7)] or [b""]
    messages = iter(
        {"type": "http.request", "body": cut, "more_body": i < len(cuts) - 1}
        for i, cut in enumerate(cuts)
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(predict(scope, receive, send))
    return vllm, sent[0]["status"], json.loads(sent[1]["body"])


OPENAI = b'{ "messages": [{"role":"user","content":"\\u00e9"}],  "max_tokens": 5, "top_k":3 }'


@pytest.mark.parametrize("path", ["/predict", CHAT_PATH])
def test_an_openai_request_reaches_vllm_byte_for_byte(path: str) -> None:
    vllm, status, answer = post(path, OPENAI, PREDICT_TEMPERATURE="0.1")
    assert vllm.bodies == [OPENAI]
    assert vllm.scopes[0]["path"] == CHAT_PATH
    assert (b"content-type", b"application/json") in vllm.scopes[0]["headers"]
    assert (status, answer) == (200, {"choices": [{"message": {"content": "Hi"}}], "usage": {}})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff", b'{"a"}', b"{" * 100_000])
def test_what_is_no_json_object_is_left_to_vllm(body: bytes) -> None:
    assert post("/predict", body)[0].bodies == [body]


def test_other_routes_and_methods_are_not_read() -> None:
    for path, method in [("/v1/models", "POST"), ("/predict", "GET"), ("/predict/", "POST")]:
        assert post(path, b'{"prompt": "a"}', method)[0].bodies == [b'{"prompt": "a"}']


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "websocket", "path": "/predict"}])
def test_other_kinds_of_connection_are_handed_on(scope: dict[str, Any]) -> None:
    vllm = Vllm()
    asyncio.run(Predict(vllm)(scope, None, None))  # type: ignore[arg-type]
    assert vllm.scopes == [scope]


def test_a_client_that_leaves_while_sending_is_let_go() -> None:
    vllm = Vllm()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
    asyncio.run(Predict(vllm)(scope, receive, None))  # type: ignore[arg-type]
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


def test_messages_of_an_older_request_are_not_rewritten() -> None:
    body = b'{"max_new_tokens": 5, "messages": [ {"content": "\\u00e9",   "role":"user"} ]}'
    vllm, _, _ = post("/predict", body)
    assert b'[ {"content": "\\u00e9",   "role":"user"} ]' in vllm.bodies[0]


def test_a_full_text_asked_for_in_generation_config_has_the_messages() -> None:
    body = {"messages": [{"role": "user", "content": "q"}]}
    for asked in ({"return_full_text": True}, {"generation_config": {"return_full_text": True}}):
        _, _, answer = post("/predict", json.dumps({**body, **asked}).encode())
        assert answer["output"] == "<s> [INST] q [/INST] Hi"


def test_defaults_are_added_to_an_openai_request_where_the_card_says_so() -> None:
    on = {"PREDICT_MAX_NEW_TOKENS": "512", "PREDICT_TEMPERATURE": "0.7"}
    vllm, _, _ = post("/predict", OPENAI, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
    assert json.loads(vllm.bodies[0]) == {**json.loads(OPENAI), "temperature": 0.7}
    vllm, _, _ = post("/predict", OPENAI, **on)
    assert vllm.bodies == [OPENAI]
    for odd in (b' \n{"messages": [], "temperature": null}', b"\xef\xbb\xbf" + OPENAI):
        vllm, _, _ = post("/predict", odd, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
        assert json.loads(vllm.bodies[0])["temperature"] == 0.7
        length = str(len(vllm.bodies[0])).encode()
        assert dict(vllm.scopes[0]["headers"])[b"content-length"] == length
    whole = b'{"messages": [], "max_completion_tokens": 5, "temperature": 0}'
    vllm, _, _ = post("/predict", whole, **on, PREDICT_DEFAULTS_FOR_MESSAGES="1")
    assert vllm.bodies == [whole]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/predict", b'{"messages": [], "max_new_token": 5}', "max_new_token"),
        ("/predict", b'{"prompt": 5}', "prompt"),
        ("/predict", b"{}", "prompt"),
        ("/predict", b'{"model": "mistral-7b"}', "prompt"),
        (CHAT_PATH, b'{"messages": [], "guided_json": {}}', "guided_json"),
        ("/v1/completions", b'{"prompt": "a", "guided_regex": "a"}', "guided_regex"),
    ],
)
def test_a_refusal_has_openai_s_shape_and_does_not_reach_vllm(
    path: str, body: bytes, param: str
) -> None:
    vllm, status, answer = post(path, body)
    assert vllm.bodies == []
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["code"] == 400


def test_a_null_is_as_good_as_not_given() -> None:
    for null in (b'"guided_json": null', b'"max_new_tokens": null', b'"max_new_token": null'):
        body = b'{"messages": [], ' + null + b"}"
        assert post("/predict", body)[0].bodies == [body]


def test_completions_are_vllm_s_own() -> None:
    body = b'{"prompt": "a", "max_new_tokens": 5}'
    assert post("/v1/completions", body)[0].bodies == [body]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CHAT)), json_values), st.booleans())
def test_any_request_of_openai_s_names_comes_out_equal(request: Any, ascii_only: bool) -> None:
    body = json.dumps({**request, "messages": []}, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    )
    assert post("/predict", body)[0].bodies == [body]


@given(st.dictionaries(st.text(), json_values))
def test_fields_are_read_and_written_without_a_change(request: Any) -> None:
    fields = read_fields(json.dumps(request).encode())
    assert fields is not None
    assert _same(json.loads(encode(fields)), request)
    assert _same(values(fields), request)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is not equal to itself


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": "\\ud800"}', '\ufeff{"a": 1}'])
def test_what_only_python_reads_is_read_as_python_does(text: str) -> None:
    fields = read_fields(text.encode())
    assert fields is not None
    assert list(fields) == ["a"]


def test_a_null_is_told_from_messages_that_are_left_undecoded() -> None:
    left = values({"messages": msgspec.Raw(b"[1]")}, leave="messages")
    assert isinstance(left["messages"], msgspec.Raw)
    assert values({"messages": msgspec.Raw(b"null")}, leave="messages") == {"messages": None}

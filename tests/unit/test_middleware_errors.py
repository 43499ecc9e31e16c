"""What the request middleware rejects, and what it makes of exceptions."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from predict import settings
from predict.errors import INTERNAL_ERROR
from predict.requests import limits
from predict.requests.bodies import TEXT
from predict.requests.middleware import READ, RequestMiddleware
from starlette.responses import JSONResponse

from tests.support.middleware import CHAT_PATH, post


@pytest.mark.parametrize("path", sorted(READ))
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" ", "empty"),
        (b"{", "truncated"),
        (b"[]", "not an object"),
        (b"5", "not an object"),
        (b"null", "not an object"),
        (b"\xff", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a"}', "not JSON"),
        (b"{'a': 1}", "double quotes"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 100_000, "deep"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_a_json_object_in_utf_8_is_refused(path: str, body: bytes, said: str) -> None:
    vllm, status, answer = post(path, body)
    assert (vllm.bodies, status) == ([], 400)
    assert said in answer["error"]["message"]


def test_a_body_is_refused_as_soon_as_it_is_known_to_be_too_long() -> None:
    limit: Any = {"PREDICT_LIMIT_BODY_BYTES": "20"}
    for announced in (True, False):
        vllm, status, answer = post("/predict", b'{"prompt": "' + b"x" * 30, announced, **limit)
        assert (vllm.bodies, status) == ([], 413)
        assert "20 bytes" in answer["error"]["message"]
        assert vllm.taken == (0 if announced else 3)
    assert post("/predict", b'{"prompt": "hi"}   ', **limit)[1] == 200


def test_where_no_image_can_be_a_body_is_as_long_as_its_text_may_be() -> None:
    most: Any = {"PREDICT_LIMIT_BODY_BYTES": "90", "PREDICT_LIMIT_TEXT_BYTES": "20"}
    body = b'{"prompt": "' + b"x" * 30
    for path in sorted(READ):
        vllm, status, _ = post(path, body, **most)
        assert (vllm.bodies, status) == ([], 413)  # before it is parsed: it is not JSON
        assert vllm.taken == (0 if path in TEXT else 6)
    only: Any = {"PREDICT_LIMIT_TEXT_BYTES": "20"}
    assert post("/detokenize", body, **only)[1] == 413
    less: Any = {"PREDICT_LIMIT_BODY_BYTES": "20", "PREDICT_LIMIT_TEXT_BYTES": "90"}
    assert post("/detokenize", body, **less)[1] == 413


ENCODED: Any = {"header:content-encoding": "gzip"}


def test_an_encoded_body_is_refused() -> None:
    vllm, status, answer = post("/predict", b"{}", **ENCODED)
    assert (vllm.bodies, status) == ([], 415)
    assert "gzip" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/predict", b'{"messages": [], "max_new_token": 5}', "max_new_token"),
        ("/predict", b'{"prompt": 5}', "prompt"),
        ("/predict", b"{}", "prompt"),
        ("/predict", b'{"model": "mistral-7b"}', "prompt"),
        (CHAT_PATH, b'{"messages": [], "guided_json": {}}', "guided_json"),
        ("/v1/completions", b'{"prompt": "a", "guided_regex": "a"}', "guided_regex"),
        ("/v1/responses", b'{"input": "a", "priority": -1}', "priority"),
        ("/predict", b'{"prompt": "a", "kv_transfer_params": {"a": 1}}', "kv_transfer_params"),
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


FIGURES: Any = {
    "PREDICT_LIMIT_PROMPTS": "8",
    "PREDICT_LIMIT_ANSWERS": "8",
    "PREDICT_LIMIT_VOCABULARY": "32768",
}


@pytest.mark.parametrize("path", sorted({CHAT_PATH, "/v1/completions", "/v1/responses"}))
@pytest.mark.parametrize(
    "odd",
    [
        {"prompt": ["a", "b"], "n": "nan"},
        {"prompt": ["a", "b"], "n": "-inf"},
        {"prompt": ["a", "b"], "n": "inf"},
        {"logit_bias": {"--5": 1}},
        {"logit_bias": {"-": 1, "": 1, "5-": 1}},
        {"prompt": "a", "generation_config": {"logit_bias": {"--1": 0}}},
    ],
)
def test_what_is_not_a_number_is_for_vllm_to_refuse(path: str, odd: dict[str, Any]) -> None:
    vllm, status, _ = post(path, json.dumps(odd).encode(), **FIGURES)
    assert (status == 200 and len(vllm.bodies) == 1) or status == 400


def test_a_schema_in_a_text_has_numbers_of_64_bits() -> None:
    schema = '{"minLength":' + "1" * 400 + "}"
    body = {"messages": [], "structured_outputs": {"json": schema}}
    vllm, status, answer = post(CHAT_PATH, json.dumps(body).encode(), **FIGURES)
    assert (vllm.bodies, status) == ([], 400)
    assert "64 bits" in answer["error"]["message"]


def test_what_no_check_foresaw_in_a_request_is_a_400(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.NUMBERS, "user", "no_such_limit")
    vllm, status, answer = post(CHAT_PATH, b'{"messages": [], "user": 5}')
    assert (vllm.bodies, status) == ([], 400)
    assert "KeyError" in answer["error"]["message"]


class BusyError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (BusyError("busy"), 503, "busy"),  # what vLLM has an answer to
        (OSError("secret"), 500, INTERNAL_ERROR),
    ],
)
@pytest.mark.parametrize("events", [0, 1])
def test_an_exception_before_a_stream_s_first_event_is_a_json_error(
    raised: Exception, status: int, said: str, events: int
) -> None:
    sent: list[Any] = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(events):
            opening = b"event: response.created\ndata: {}\n\n"
            await send({"type": "http.response.body", "body": opening, "more_body": True})
        raise RuntimeError("response already started") from raised

    async def handler(request: Any, error: Exception) -> Any:
        assert error is raised
        return JSONResponse({"error": {"message": str(error), "code": 503}}, 503)

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"input": "a"}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = SimpleNamespace(exception_handlers={BusyError: handler, Exception: handler})
    scope = {"type": "http", "path": "/v1/responses", "method": "POST", "headers": [], "app": app}
    asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, receive, send))
    start, body = sent
    assert start["status"] == status
    assert json.loads(body["body"])["error"]["message"] == said


def test_an_exception_in_the_middle_of_a_stream_breaks_it_off() -> None:
    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
        raise RuntimeError

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "path": "/v1/models", "method": "GET", "headers": []}
    with pytest.raises(RuntimeError):
        asyncio.run(RequestMiddleware(vllm, settings.read({}))(scope, None, send))  # type: ignore[arg-type]

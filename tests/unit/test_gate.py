"""What the gate lets through, and what its answers are."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from predict import gate
from predict.gate import Answer, Gate, methods_of

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]
CHAT = "/v1/chat/completions"


class Engine:
    errored = False

    def __init__(self, unfinished: int = 0) -> None:
        self.unfinished = unfinished

    def get_num_unfinished_requests(self) -> int:
        return self.unfinished


def ask(
    path: str,
    method: str = "POST",
    unfinished: int = 0,
    running: int = 0,
    limit: int | None = 4,
    stopping: bool = False,
) -> tuple[int, dict[bytes, bytes], Any, bool]:
    """Status, headers and body of the answer, and whether vLLM was asked. Nothing may be read of a
    request that is refused."""
    asked, sent = [], []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    state = SimpleNamespace(
        args=SimpleNamespace(max_num_queued_reqs=limit), engine_client=Engine(unfinished)
    )
    scope = {"type": "http", "path": path, "method": method, "app": SimpleNamespace(state=state)}
    door = Gate(vllm)
    door.running, door.stopping = running, stopping
    asyncio.run(door(scope, receive, send))
    assert door.running == running
    return (
        sent[0]["status"],
        dict(sent[0]["headers"]),
        json.loads(sent[1]["body"] or b"null"),
        bool(asked),
    )


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/predict", ("POST",)),
        ("/v1/models", ("GET",)),
        ("/v1/responses/resp_0", ("GET",)),
        ("/v1/responses/resp_0/cancel", ("POST",)),
        ("/v1/responses/", None),
        ("/v1/responses/a/b", None),
        ("/v1/responses/a/cancel/", None),
        ("/v1/responses/..", None),
        ("/docs", None),
        ("/health/", None),
        ("//health", None),
        ("", None),
    ],
)
def test_routes_are_let_through_by_name(path: str, methods: tuple[str, ...] | None) -> None:
    assert methods_of(path) == methods


def test_an_unknown_path_is_404_whatever_the_method() -> None:
    for method in ("GET", "POST", "OPTIONS", "ODD"):
        status, _, body, asked = ask("/docs", method)
        assert (status, body["error"]["code"], asked) == (404, 404, False)


def test_another_method_is_405_and_says_which() -> None:
    status, headers, body, asked = ask(CHAT, "GET")
    assert (status, headers[b"allow"], body["error"]["code"], asked) == (405, b"POST", 405, False)
    assert ask("/health", "OPTIONS")[0] == 405
    assert ask(CHAT, "OPTIONS")[3]  # CORS is vLLM's


@pytest.mark.parametrize("full", [{"unfinished": 4}, {"running": 4}, {"limit": 0}])
def test_one_request_too_many_is_refused_unread(full: dict[str, int]) -> None:
    status, headers, body, asked = ask(CHAT, **full)  # type: ignore[arg-type]
    assert (status, headers[b"retry-after"], body["error"]["code"]) == (503, b"10", 503)
    assert not asked
    assert ask("/tokenize", **full)[3]  # type: ignore[arg-type]
    assert ask("/health", "GET", **full)[0] == 200  # type: ignore[arg-type]


def test_the_last_place_is_given() -> None:
    assert ask(CHAT, unfinished=3, running=3)[3]
    assert ask(CHAT, unfinished=1000, limit=None)[3]


def test_a_server_that_stops_takes_nothing_but_probes() -> None:
    for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/tokenize", "POST")):
        status, headers, _, asked = ask(path, method, stopping=True)
        assert (status, headers[b"retry-after"], asked) == (503, b"10", False)
    assert ask(gate.LIVENESS, "GET", stopping=True)[0] == 200
    assert ask(gate.HEALTH, "GET", stopping=True)[0] == 503
    assert ask(gate.METRICS, "GET", stopping=True)[3]


def answered(status: int, headers: Any, *bodies: bytes) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer() -> None:
        answer = Answer(send)
        await answer({"type": "http.response.start", "status": status, "headers": headers})
        for body in bodies:
            await answer({"type": "http.response.body", "body": body, "more_body": True})
        await answer({"type": "http.response.body", "body": b"", "more_body": False})

    asyncio.run(answer())
    return sent


def test_an_answer_passes_as_it_is() -> None:
    for headers, bodies in ((JSON, [b'{"a": 1}']), (EVENTS, [b'data: {"id": 1}\n\n', b"data: x"])):
        start, *rest = answered(200, headers, *bodies)
        assert (start["status"], start["headers"]) == (200, headers)
        assert [message["body"] for message in rest] == [*bodies, b""]


def test_a_refusal_of_vllm_s_says_when_to_come_again() -> None:
    assert answered(503, JSON, b"{}")[0]["headers"] == [*JSON, (b"retry-after", b"10")]
    assert answered(400, JSON, b"{}")[0]["headers"] == JSON


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (b'{"error": {"message": "busy", "code": 503}}', 503, [(b"retry-after", b"10")]),
        (b'{"error": {"message": "bad", "code": 400}}', 400, []),
        (b'{"error": {"message": "odd", "code": "x"}}', 500, []),
    ],
)
def test_a_stream_that_begins_with_an_error_is_that_error(
    error: bytes, status: int, retry: list[Any]
) -> None:
    start, body = answered(200, EVENTS, b"data: " + error + b"\n\n", b"data: [DONE]\n\n")
    assert start["status"] == status
    assert [header for header in start["headers"] if header[0] == b"retry-after"] == retry
    assert (body["body"], body["more_body"]) == (error, False)


def test_an_error_later_in_a_stream_passes() -> None:
    error = b'data: {"error": {"message": "late", "code": 500}}\n\n'
    start, *rest = answered(200, EVENTS, b'data: {"id": 1}\n\n', error)
    assert start["status"] == 200
    assert rest[1]["body"] == error

"""What the gate lets through, and what its answers are."""

import asyncio
import contextlib
import json
import math
import time
from types import SimpleNamespace
from typing import Any

import pytest
from predict import admission, memory, pacing, rate_limit, settings
from predict.admission import PLACED, AdmissionMiddleware, methods_of
from predict.requests.middleware import RequestMiddleware

from tests.support.loops import settled
from tests.support.middleware import Vllm

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
    answer: tuple[int, Any] = (200, JSON),
    stream_interval: int | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
    **environment: str,
) -> tuple[int, dict[bytes, bytes], Any, bool]:
    """Status, headers and body of the answer, and whether vLLM was asked. Nothing may be read of a
    request that is refused."""
    asked, sent = [], []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        assert stream_interval in (None, scope.get(pacing.SCOPE))
        await send({"type": "http.response.start", "status": answer[0], "headers": answer[1]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    state = SimpleNamespace(
        args=SimpleNamespace(max_num_queued_reqs=limit), engine_client=Engine(unfinished)
    )
    scope = {"type": "http", "path": path, "method": method, "app": SimpleNamespace(state=state)}
    scope["headers"] = headers or []
    door = AdmissionMiddleware(vllm, settings.read(environment))
    door.running, door.stopping = running, stopping
    asyncio.run(door(scope, receive, send))
    assert door.running == running
    names = [name for name, _ in sent[0]["headers"]]
    assert len(names) == len(set(names))
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
    assert {ask(path, **full)[0] for path in PLACED} == {503}  # type: ignore[arg-type]
    assert ask("/v1/models", "GET", **full)[3]  # type: ignore[arg-type]
    assert ask(CHAT, "OPTIONS", **full)[3]  # type: ignore[arg-type]
    assert ask("/health", "GET", **full)[0] == 200  # type: ignore[arg-type]


def test_bodies_that_do_not_come_lose_their_slots_where_all_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "GRACE_SECONDS", 0)
    inner = RequestMiddleware(Vllm(), settings.read({}))
    door = AdmissionMiddleware(inner, settings.read({}), inner.memory.free_slots)
    state = SimpleNamespace(args=SimpleNamespace(max_num_queued_reqs=2), engine_client=Engine())
    scope = {"type": "http", "path": CHAT, "method": "POST", "app": SimpleNamespace(state=state)}
    scope["headers"] = [(b"content-length", b"16")]

    async def status(comes: bool) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            whole = {
                "type": "http.request",
                "body": b'{"messages": [{"role": "user", "content": "a"}]}',
                "more_body": False,
            }
            return whole if comes else await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)

        await door(scope, receive, send)
        return int(sent[0]["status"])

    async def test() -> None:
        slow = [asyncio.create_task(status(False)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert await status(True) == 503
        assert await asyncio.gather(*slow) == [408, 408]
        assert await status(True) == 200

    asyncio.run(asyncio.wait_for(test(), 30))


def test_the_last_place_is_given() -> None:
    assert ask(CHAT, unfinished=3, running=3)[3]
    assert ask(CHAT, unfinished=1000, limit=None)[3]


@pytest.mark.parametrize(("running", "tokens"), [(0, 1), (14, 1), (15, 2), (31, 4), (99, 8)])
def test_a_request_is_told_how_many_tokens_an_event_of_it_carries(
    running: int, tokens: int
) -> None:
    assert ask(CHAT, running=running, limit=None, stream_interval=tokens)[3]


def test_a_server_that_stops_takes_nothing_but_probes() -> None:
    for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/tokenize", "POST")):
        status, headers, _, asked = ask(path, method, stopping=True)
        assert (status, headers[b"retry-after"], asked) == (503, b"10", False)
    assert ask(admission.LIVENESS, "GET", stopping=True)[0] == 200
    assert ask(admission.HEALTH, "GET", stopping=True)[0] == 503
    assert ask(admission.METRICS, "GET", stopping=True)[3]


def test_a_refusal_of_vllm_s_says_when_to_come_again() -> None:
    for status, retry in ((503, b"10"), (400, None), (200, None)):
        got, headers, _, asked = ask(CHAT, answer=(status, JSON))
        assert (got, headers.get(b"retry-after"), asked) == (status, retry, True)


def test_what_nginx_would_rewrite_is_rewritten() -> None:
    assert ask("/", "GET")[0] == ask("/v1/models/model", "HEAD")[0] == 200
    assert ask("/", "GET", stopping=True)[0] == 200
    assert ask("/v1/models/model", "GET", stopping=True)[0] == 503
    assert ask("/v1/models/model:predict")[3]
    assert ask("/v1/models/model:predict", running=4)[0] == 503


def test_headers_over_the_limit_are_431() -> None:
    limit = admission.HEADER_BYTES
    status, _, body, asked = ask(CHAT, headers=[(b"a", b"x" * limit)])
    assert (status, body["error"]["code"], asked) == (431, 431, False)
    assert ask(CHAT, headers=[(b"a", b"x" * (limit - 100))])[3]


def test_behind_nginx_its_connections_are_a_limit_too() -> None:
    """packages/start/prepare.sh sets the variable where there is nginx."""
    assert ask(CHAT, running=2, limit=4, PREDICT_MOST_REQUESTS="2")[0] == 503
    assert ask(CHAT, running=2, limit=None, PREDICT_MOST_REQUESTS="2")[0] == 503
    assert ask(CHAT, running=2, limit=4, PREDICT_MOST_REQUESTS="8")[3]


def test_a_model_is_read_by_its_name() -> None:
    from predict.admission import methods_of

    assert methods_of("/v1/models/mistralai/Mistral-7B-Instruct-v0.3") == ("GET",)
    assert methods_of("/v1/models/") is None


def test_a_slot_is_free_as_soon_as_its_client_has_the_whole_answer() -> None:
    """vLLM ends a stream's tasks after its last piece: on an H100, 101 of 1,024 requests of 256
    clients that asked again at once were rejected, with 320 slots."""

    async def scene() -> list[int]:
        seen = []

        async def vllm(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": JSON})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            seen.append(door.running)
            await send({"type": "http.response.body", "body": b"}"})
            seen.append(door.running)

        async def ignore(*_: Any) -> Any:
            pass

        state = SimpleNamespace(
            args=SimpleNamespace(max_num_queued_reqs=4), engine_client=Engine(0)
        )
        door = AdmissionMiddleware(vllm, settings.read({}))
        scope = {"type": "http", "path": CHAT, "method": "POST", "headers": []}
        await door({**scope, "app": SimpleNamespace(state=state)}, ignore, ignore)
        return [*seen, door.running]

    assert asyncio.run(scene()) == [1, 0, 0]


async def never() -> Any:
    raise AssertionError("the body was read")


def beyond_the_rate(
    path: str, method: str, status: int, error: type[Exception] | None = None
) -> tuple[AdmissionMiddleware, Any, list[Any]]:
    """A door beyond its rate, before a vLLM that answers so, and then may raise an error; a request
    to it, to be awaited; and what the client gets."""

    async def vllm(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": JSON})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await send({"type": "http.response.body", "body": b"}"})
        if error is not None:
            raise error

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    door = AdmissionMiddleware(vllm, settings.read({}))
    door.rate.next_at = math.inf
    args = SimpleNamespace(max_num_queued_reqs=2)
    state = SimpleNamespace(args=args, engine_client=Engine(unfinished=1))
    scope = {"type": "http", "path": path, "method": method, "headers": []}
    return door, door({**scope, "app": SimpleNamespace(state=state)}, never, send), sent


@pytest.mark.parametrize(
    ("path", "method", "status", "delayed"),
    [
        (CHAT, "POST", 200, False),
        (CHAT, "POST", 503, False),
        (CHAT, "POST", 400, True),
        (CHAT, "POST", 500, True),
        (CHAT, "OPTIONS", 200, True),
        ("/tokenize", "POST", 200, True),
        ("/v1/models", "GET", 200, True),
        ("/v1/responses/resp_0", "GET", 200, True),
        ("/v1/responses/resp_0", "OPTIONS", 200, True),
        ("/docs", "GET", 404, True),
        ("/metrics", "GET", 200, False),
        ("/metrics", "OPTIONS", 200, True),
        ("/metrics", "POST", 405, True),
        ("/liveness", "GET", 200, False),
        ("/", "HEAD", 200, False),
        ("/health", "GET", 200, False),
        ("/health", "POST", 405, True),
    ],
)
def test_answers_without_the_engine_are_delayed_and_keep_no_slot(
    path: str, method: str, status: int, delayed: bool
) -> None:
    door, request, sent = beyond_the_rate(path, method, status)

    async def scene() -> bool:
        asked = asyncio.ensure_future(request)
        await settled()
        waits = not asked.done()
        asked.cancel()
        return waits

    assert asyncio.run(scene()) == delayed
    assert [message["status"] for message in sent[:1]] == ([] if delayed else [status])
    assert door.running == 0


@pytest.mark.parametrize("error", [None, ValueError])
def test_a_delayed_answer_is_sent_whole(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "MOST_SECONDS", 0.05)
    _, request, sent = beyond_the_rate(CHAT, "POST", 400, error)
    began = time.monotonic()
    with pytest.raises(error) if error else contextlib.nullcontext():
        asyncio.run(request)
    assert time.monotonic() - began >= 0.05
    assert [message.get("status") or message["body"] for message in sent] == [400, b"{", b"}"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions? (an OpenAI client's base_url ends in /v1)"),
        ("/v1/v1/chat/completions", "/v1/chat/completions?"),
        ("/v1/chat/completion", "/v1/chat/completions?"),
        ("/v1/chat/completions/", "/v1/chat/completions?"),
        ("/predict/", "/predict?"),
        ("/v1/predict", "/predict?"),
        ("/v1/embeddings", ""),
        ("/" * 5000, ""),
    ],
)
def test_a_route_that_is_nearly_one_is_told_which(path: str, meant: str) -> None:
    status, _, body, asked = ask(path)
    assert (status, asked) == (404, False)
    said = body["error"]["message"]
    assert said.partition(" here")[2] == (f"; did you mean {meant}" if meant else "")

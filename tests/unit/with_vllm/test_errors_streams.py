"""Errors in streams: before the first event, and later."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from predict.errors import INTERNAL_ERROR
from predict.errors.reading import NOT_SAID
from predict.errors.responder import TURNS, ErrorResponder
from predict.vllm_internals import GIVEN_UP, OPENING_EVENTS

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"

CONTENT = [(b"Access-Control-Allow-Origin", b"*")]

EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), *CONTENT]

END = b""


def streamed(path: str, *events: bytes, constraint: str | None = None, **names: str) -> list[Any]:
    """What the client gets of a stream of these events."""
    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append(message)

    async def answer() -> None:
        wrapped = ErrorResponder(send, path)
        wrapped.constraint, wrapped.names = constraint, names
        await wrapped({"type": "http.response.start", "status": 200, "headers": EVENTS})
        assert not wrapped.begun
        for event in events:
            more = event != END
            await wrapped({"type": "http.response.body", "body": event, "more_body": more})
        assert wrapped.begun

    asyncio.run(answer())
    return got


def failed(error: Any) -> bytes:
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


def mistaken(error: Any) -> bytes:
    """An error as vLLM puts it into a stream of Anthropic's messages."""
    quoted = repr({"error": error})
    text = f"2 validation errors\nmodel\n [input_value={quoted[:25]}...{quoted[-24:]}, input_type"
    body = {"type": "error", "error": {"type": "internal_error", "message": text}}
    return b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("error", "constraint"),
    [
        ({"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}, None),
        ({"message": "bad n", "type": "BadRequestError", "param": "n", "code": 400}, None),
        ({"message": "KeyError: secret", "type": "InternalServerError", "code": 500}, None),
        ({"message": "asked for", "type": "NotImplementedError", "code": 501}, None),
        ({"message": GIVEN_UP, "type": "InternalServerError", "code": 500}, "response_format"),
    ],
)
def test_a_stream_that_begins_with_an_error_is_that_error(error: Any, constraint: Any) -> None:
    done = b"data: [DONE]\n\n"
    for path in (CHAT, MESSAGES):
        got = streamed(path, failed(error), done, END, constraint=constraint, n="answers")
        whole: list[Any] = []

        async def send(message: Any, whole: list[Any] = whole) -> None:
            whole.append(message)

        async def answer(path: str = path, send: Any = send) -> None:
            wrapped = ErrorResponder(send, path)
            wrapped.constraint, wrapped.names = constraint, {"n": "answers"}
            start = {"type": "http.response.start", "status": error["code"], "headers": CONTENT}
            await wrapped(start)
            body = json.dumps({"error": error}).encode()
            await wrapped({"type": "http.response.body", "body": body})

        asyncio.run(answer())
        assert got == whole


@pytest.mark.parametrize(
    ("error", "status"),
    [("x", 500), ({}, 500), ([], 500), (None, 500), ({"code": "503"}, 500), ({"code": 499}, 500)],
)
def test_an_odd_error_is_one_too(error: Any, status: int) -> None:
    start, whole = streamed(CHAT, failed(error), END)
    assert start["status"] == status
    assert json.loads(whole["body"])["error"]["message"] == INTERNAL_ERROR
    for event in (b'data: {"error": \n\n', b"event: error\n\n", b"event: error\ndata: []\n\n"):
        assert streamed(CHAT, event, END)[0]["status"] == 500


@pytest.mark.parametrize(
    ("error", "constraint", "status", "message"),
    [
        ({"message": "The engine is busy", "code": 503}, None, 503, "Service Unavailable"),
        ({"message": "'a' is bad", "param": "output_config", "code": 400}, None, 400, NOT_SAID),
        ({"message": "EngineCore had an issue", "code": 500}, "tools", 500, INTERNAL_ERROR),
        ({"message": GIVEN_UP, "code": 500}, None, 500, INTERNAL_ERROR),
        ({"message": GIVEN_UP, "code": 500}, "tools", 400, "no output fits 'tools'"),
    ],
)
def test_what_vllm_mistakes_for_an_answer_of_anthropic_s_is_told_by_its_status(
    error: Any, constraint: str | None, status: int, message: str
) -> None:
    start, whole = streamed(MESSAGES, mistaken(error), END, constraint=constraint)
    answer = json.loads(whole["body"])
    assert (start["status"], answer["type"]) == (status, "error")
    assert message in answer["error"]["message"]
    assert "validation" not in json.dumps(answer)


@pytest.mark.parametrize("status", [400, 503])
def test_vllm_mistakes_an_error_in_just_that_way(status: int) -> None:
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
    from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse

    info = ErrorInfo(message='it\'s "quoted" and long enough', type="x", code=status)
    sent = "data: " + json.dumps(ErrorResponse(error=info).model_dump()) + "\n\n"

    async def refused() -> AsyncGenerator[str, None]:
        yield sent
        yield "data: [DONE]\n\n"

    async def converted() -> list[bytes]:
        vllm: Any = object.__new__(AnthropicServingMessages)
        return [event.encode() async for event in vllm.message_stream_converter(refused())]

    start, whole = streamed(MESSAGES, *asyncio.run(converted()), END)
    assert start["status"] == status
    assert "quoted" not in whole["body"].decode()


def test_a_stream_of_responses_waits_until_the_engine_has_answered() -> None:
    opening = [event + b"data: {}\n\n" for event in OPENING_EVENTS]
    text = b"event: response.output_text.delta\ndata: {}\n\n"
    assert [message.get("body") for message in streamed(RESPONSES, *opening, text, END)] == [
        None,
        *opening,
        text,
        END,
    ]
    refused = streamed(RESPONSES, *opening, failed({"message": "busy", "code": 503}), END)
    assert [message.get("status") for message in refused] == [503, None]


@pytest.mark.parametrize("answers", [1, 3])
def test_a_role_alone_does_not_begin_an_answer(answers: int) -> None:
    """vLLM sends it before it looks at what the engine said first."""
    role = b'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    begun = b'event: message_start\ndata: {"type":"message_start"}\n\n'
    given_up = {"message": GIVEN_UP, "code": 500}
    for path, opening, error in (
        (CHAT, [role] * answers, failed(given_up)),
        (MESSAGES, [begun], mistaken(given_up)),
    ):
        start, whole = streamed(path, *opening, error, END, constraint="tools")
        assert start["status"] == 400
        assert json.loads(whole["body"])["error"]["param"] == "tools"
        got = streamed(path, *opening, b"data: a\n\n", END)
        assert [message["body"] for message in got[1:]] == [*opening, b"data: a\n\n", END]


def test_an_error_later_in_a_stream_is_an_event_that_shows_as_little() -> None:
    secret = {"message": "KeyError: secret", "code": 500}
    for path, event in ((CHAT, failed(secret)), (MESSAGES, mistaken(secret))):
        got = streamed(path, b"data: a\n\n", event, b"data: [DONE]\n\n", END)
        start, first, late, *rest = got
        assert start["status"] == 200
        assert (first["body"], [message["body"] for message in rest]) == (
            b"data: a\n\n",
            [b"data: [DONE]\n\n", END],
        )
        head, _, body = late["body"].partition(b"data: ")
        assert head == event.partition(b"data: ")[0]
        assert body.endswith(b"}\n\n")
        error = json.loads(body)["error"]
        assert (error["message"], error["code"]) == (INTERNAL_ERROR, 500)
    given_up = failed({"message": GIVEN_UP, "code": 500})
    late = streamed(CHAT, b"data: a\n\n", given_up, END, constraint="tools")[2]
    assert json.loads(late["body"][6:])["error"]["param"] == "tools"


def test_a_stream_without_an_event_ends_as_it_is() -> None:
    assert [message["type"][14:] for message in streamed(CHAT, END)] == ["start", "body"]


ROLE = b'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


def test_a_role_does_not_wait_for_words() -> None:
    """A call of a tool has its first event when it is complete: seconds later, on a GPU too."""
    begun = b'event: message_start\ndata: {"type":"message_start"}\n\n'
    error = failed({"message": GIVEN_UP, "code": 500})

    async def answer(opening: bytes) -> list[Any]:
        got: list[Any] = []

        async def send(message: Any) -> None:
            await asyncio.sleep(0)  # a slow client, which what comes later may not overtake
            got.append(message)

        wrapped = ErrorResponder(send, CHAT)
        await wrapped({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await wrapped({"type": "http.response.body", "body": opening, "more_body": True})
        assert not got
        while not wrapped.begun:
            await asyncio.sleep(0)
        await wrapped({"type": "http.response.body", "body": error, "more_body": True})
        return got

    for opening in (ROLE, begun):
        start, first, late = asyncio.run(answer(opening))
        assert (start["status"], first["body"]) == (200, opening)
        assert json.loads(late["body"][6:])["error"]["message"]


def test_what_responses_begins_with_waits_for_the_engine() -> None:
    async def answer() -> list[Any]:
        got: list[Any] = []

        async def send(message: Any) -> None:
            got.append(message)

        wrapped = ErrorResponder(send, RESPONSES)
        await wrapped({"type": "http.response.start", "status": 200, "headers": EVENTS})
        for opening in OPENING_EVENTS:
            body = opening + b"data: {}\n\n"
            await wrapped({"type": "http.response.body", "body": body, "more_body": True})
        for _ in range(10 * TURNS):
            await asyncio.sleep(0)
        return got

    assert asyncio.run(answer()) == []

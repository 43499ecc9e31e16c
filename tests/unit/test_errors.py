"""ErrorResponder as clients see them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from predict.errors import INTERNAL_ERROR, MAX_LENGTH, reading
from predict.errors.reading import NOT_SAID
from predict.errors.responder import ErrorResponder
from predict.vllm_internals import ERROR_EVENTS, GIVEN_UP, OPENING_EVENTS


def sent(path: str, status: int, body: bytes, **names: str) -> tuple[dict[bytes, bytes], Any]:
    """Headers and body of what the client gets of such an error, which comes in pieces."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def answer() -> None:
        wrapped = ErrorResponder(send, path)
        wrapped.names = names
        headers = [(b"content-length", b"5"), (b"content-type", b"text/x"), (b"retry-after", b"1")]
        await wrapped({"type": "http.response.start", "status": status, "headers": headers})
        for i in range(0, len(body), 1000):
            more = i + 1000 < len(body)
            piece = body[i : i + 1000]
            await wrapped({"type": "http.response.body", "body": piece, "more_body": more})

    asyncio.run(answer())
    start, whole = messages
    assert start["status"] == status
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(whole["body"])).encode()
    return headers, json.loads(whole["body"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "gone"}', "gone"),
        (b'{"error": {"message": "gone", "type": "x", "param": 5}}', "gone"),
        (b'{"type": "error", "error": {"message": "gone"}}', "gone"),
        (b'"gone"', "gone"),
        (b"gone", "gone"),
        (b"[]", "Not Found"),
        (b'{"error": {"message": ""}}', "Not Found"),
        (b'{"detail": [{"msg": "gone"}]}', "Not Found"),
        (b"\xff" * 5, "�" * 5),
    ],
)
def test_every_error_gets_openai_s_shape(body: bytes, message: str) -> None:
    headers, answer = sent("/v1/chat/completions", 404, body)
    error = answer.pop("error")
    assert answer == {}
    assert error["message"] == message
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["type"], str)
    assert error["code"] == 404
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"retry-after"] == b"1"


def test_anthropic_s_clients_find_their_mark_beside_it() -> None:
    _, answer = sent("/v1/messages", 400, b'{"type": "error", "error": {"message": "a"}}')
    assert answer["type"] == "error"
    assert answer["error"]["message"] == "a"


def test_a_success_passes_untouched() -> None:
    messages: list[Any] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": ERROR_EVENTS[0] + b"a", "more_body": True},
        {"type": "http.response.body", "body": b"data: b\n\n"},
    ]
    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append(message)

    async def answer() -> None:
        wrapped = ErrorResponder(send, "/predict")
        for message in messages:
            await wrapped(message)
            assert got[-1] is message

    asyncio.run(answer())


def test_a_message_shows_little_of_a_request() -> None:
    for text in ("x" * 10_000, "x" * 10_000_000):
        _, answer = sent("/predict", 400, json.dumps({"error": {"message": text}}).encode())
        assert len(answer["error"]["message"]) == MAX_LENGTH


def test_a_fault_of_the_server_shows_nothing_of_any_request() -> None:
    _, answer = sent("/predict", 500, b'{"error": {"message": "KeyError: my secret"}}')
    assert "secret" not in json.dumps(answer)
    assert answer["error"]["code"] == 500


def test_a_schema_that_nothing_fits_is_the_client_s() -> None:
    given_up = b'{"error": {"message": "Internal server error"}}'
    assert reading.parse_error(500, given_up, "response_format")[0] == 400
    assert reading.parse_error(500, given_up)[0] == 500
    for body in (b'{"error": {"message": "EngineCore encountered an issue"}}', b"", b"CUDA"):
        assert reading.parse_error(500, body, "response_format")[0] == 500


VALIDATION = """5 validation errors:
  {'type': 'int_parsing', 'loc': 'body.n', 'msg': 'Input should be a valid integer', 'input': 'sec'}
  {'type': 'x', 'loc': 'body.stop.0', 'msg': "Input isn't \\"right\\"", 'input': 'secret'}
  {'type': 'int_parsing', 'loc': 'body.n', 'msg': 'Input should be a valid integer', 'input': 'sec'}
  {'type': 'x', 'loc': 'body', 'msg': 'Value error, a', 'input': {'a': "secret"...[truncated]
  {'type': 'x', 'loc': 'body.a', 'msg': 'b'}
  ...and 1 more errors"""


def test_validation_errors_become_a_sentence_each_without_what_they_quote() -> None:
    body = {"error": {"message": VALIDATION, "param": "body.n", "type": "Bad Request"}}
    _, answer = sent("/v1/completions", 400, json.dumps(body).encode())
    assert answer["error"]["message"] == (
        "'n': Input should be a valid integer; 'stop.0': Input isn't \"right\"; "
        "'body': Value error, a; and more"
    )
    assert answer["error"]["param"] == "n"


def test_what_is_not_implemented_was_asked_for() -> None:
    answered = reading.parse_error(
        501, b'{"error": {"message": "a", "type": "NotImplementedError"}}'
    )
    assert answered == (400, "a", "BadRequestError", None)


def test_a_client_s_own_names_are_used() -> None:
    body = {"error": {"message": "stop_token_ids must be … (stop_token_ids)", "param": "n"}}
    names = {"stop_token_ids": "eos_token_id", "n": "num_return_sequences"}
    _, answer = sent("/predict", 400, json.dumps(body).encode(), **names)
    assert answer["error"]["message"] == "eos_token_id must be … (eos_token_id)"
    assert answer["error"]["param"] == "num_return_sequences"


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


def test_what_starlette_hides_is_found() -> None:
    plain, wrapped = ValueError("a"), RuntimeError("response already started")
    wrapped.__cause__ = plain
    assert reading.cause(wrapped) is reading.cause(plain) is plain
    plain.__cause__ = KeyError()
    assert reading.cause(plain) is plain


def raised_in(module: str, error: Exception) -> Exception:
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as caught:
        return caught
    raise AssertionError


@pytest.mark.parametrize("kind", [KeyError, AttributeError, RecursionError, IndexError])
def test_what_python_raises_while_a_request_is_read_is_the_client_s(kind: type[Exception]) -> None:
    for module in ("vllm.entrypoints.openai.chat_completion.protocol", "predict.requests.limits"):
        raised = raised_in(module, kind("a"))
        assert reading.is_client_error(raised)
        assert kind.__name__ in reading.unreadable(raised)
    for module in (
        "vllm.v1.engine.core_client",
        "vllm.v1.worker.gpu",
        "predict.requests.middleware",
    ):
        assert not reading.is_client_error(raised_in(module, kind("a")))


@pytest.mark.parametrize("error", [RuntimeError("CUDA"), MemoryError(), OSError(), TimeoutError()])
def test_a_fault_of_the_machine_is_the_server_s_wherever_it_shows(error: Exception) -> None:
    assert not reading.is_client_error(raised_in("vllm.renderers.mistral", error))

"""ErrorResponder as clients see them."""

import asyncio
import json
from typing import Any

import pytest
from predict.errors import MAX_LENGTH, reading
from predict.errors.responder import ErrorResponder
from predict.vllm_internals import ERROR_EVENTS

from tests.support.error_responses import sent


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
        "'n': Input should be a valid integer; 'stop[0]': Input isn't \"right\"; "
        "Value error, a; and more"
    )
    assert answer["error"]["param"] == "n"


REQUEST = {
    "tools": [{"type": "function", "name": "f", "description": [5]}],
    "stop": 5,
    "text": {"format": {}},
}


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (
            [
                ("tools.0.FunctionTool.description", "Input should be a valid string"),
                ("tools.0.FileSearchTool.type", "Input should be 'file_search'"),
                ("tools.0.FileSearchTool.vector_store_ids", "Field required"),
            ],
            "'tools[0].description' is [5]; it takes a string",
        ),
        (
            [
                ("stop.str", "Input should be a valid string"),
                ("stop.list[str]", "Input should be a valid list"),
            ],
            "'stop' is 5; it takes a string, or a list",
        ),
        (
            [
                ("text.format.ResponseFormatText.type", "Field required"),
                ("text.format.ResponseFormatTextJSONSchemaConfig.type", "Field required"),
            ],
            "'text.format.type' is missing",
        ),
    ],
)
def test_a_validation_error_names_place_value_and_what_is_taken(
    faults: list[tuple[str, str]], said: str
) -> None:
    lines = [str({"type": "x", "loc": f"body.{loc}", "msg": msg}) for loc, msg in faults]
    message = f"{len(lines)} validation errors:\n" + "\n".join(f"  {line}" for line in lines)
    body = json.dumps({"error": {"message": message}}).encode()
    _, got, _, param = reading.parse_error(400, body, None, REQUEST)
    assert got == said
    assert param == said.split("'")[1]


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

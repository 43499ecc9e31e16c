"""vLLM's answers as legacy clients get them, whatever way vLLM cuts its stream."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict.legacy.requests import LegacyRequest
from predict.legacy.responses import JSONResponder, TextStreamResponder, answer

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-kept", b"1")],
}
PLAIN = LegacyRequest(chat={}, stream=True, answers=1)


def event(content: str | None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None}
    body = json.dumps({"id": "1", "choices": [choice]}, ensure_ascii=False)
    return f"data: {body}\n\n".encode()


def error(code: int) -> bytes:
    body = {"error": {"message": "engine", "type": "x", "param": None, "code": code}}
    return f"data: {json.dumps(body)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id": "1", "choices": [], "usage": {"total_tokens": 3}}\n\n'


def streamed(
    chunks: list[bytes], legacy: LegacyRequest = PLAIN, ends: bool = True
) -> list[dict[str, Any]]:
    """What is sent on when vLLM sends these chunks."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def play() -> None:
        stream = TextStreamResponder(send, legacy)
        await stream(START)
        for chunk in chunks:
            await stream({"type": "http.response.body", "body": chunk, "more_body": True})
        if ends:
            await stream({"type": "http.response.body", "body": b"", "more_body": False})

    asyncio.run(play())
    return sent


def texts(sent: list[dict[str, Any]]) -> list[str]:
    return [message["body"].decode() for message in sent[1:] if message["body"]]


def test_each_piece_of_text_is_a_chunk_of_its_own() -> None:
    sent = streamed([event(""), event("The"), event(" wind"), event(None), USAGE, DONE])
    assert texts(sent) == ["The", " wind"]
    assert dict(sent[0]["headers"]) == {
        b"content-type": b"text/plain; charset=utf-8",
        b"x-kept": b"1",
    }
    assert [message.get("more_body") for message in sent[1:]] == [True, True, False]


def test_events_that_come_together_stay_apart() -> None:
    assert texts(streamed([event("The") + event(" wind"), DONE])) == ["The", " wind"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.lists(st.integers(1, 40)))
def test_a_stream_cut_anywhere_arrives_whole(pieces: list[str], cuts: list[int]) -> None:
    pieces = ["é🌬", *pieces]
    whole = b"".join([*map(event, pieces), DONE])
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(whole[position : position + cut])
        position += cut
    assert texts(streamed([*chunks, whole[position:]])) == pieces


def test_keep_alive_comments_are_no_text() -> None:
    assert texts(streamed([b": keep-alive\n\n", event("The"), b": keep-alive\n\n", DONE])) == [
        "The"
    ]


def test_an_answer_without_text_is_an_empty_stream() -> None:
    sent = streamed([event(""), DONE])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 200
    assert sent[1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize(("code", "status"), [(400, 400), (503, 503), (7, 500)])
def test_an_error_before_the_first_text_is_json_with_its_status(code: int, status: int) -> None:
    sent = streamed([event(""), error(code), DONE])
    assert sent[0]["status"] == status
    assert (b"content-type", b"application/json") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["message"] == "engine"
    assert len(sent) == 2


def test_an_error_after_the_first_text_leaves_the_response_without_its_end() -> None:
    sent = streamed([event("The"), error(500), event("x"), DONE])
    assert texts(sent) == ["The"]
    assert all(message.get("more_body", True) for message in sent)


def test_an_answer_the_server_gives_up_is_left_without_its_end() -> None:
    given_up = event("").replace(b'"finish_reason": null', b'"finish_reason": "abort"')
    sent = streamed([event("The"), given_up, DONE])
    assert texts(sent) == ["The"]
    assert all(message.get("more_body", True) for message in sent)
    assert streamed([given_up, DONE])[0]["status"] == 500


def test_a_stream_that_stops_short_is_left_without_its_end() -> None:
    sent = streamed([event("The")])
    assert all(message.get("more_body", True) for message in sent)
    assert streamed([event("")])[0]["status"] == 500


def test_what_is_not_a_success_passes_as_it_is() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    start = {"type": "http.response.start", "status": 404, "headers": []}
    body = {"type": "http.response.body", "body": b'{"error": {}}', "more_body": False}
    for kind in (TextStreamResponder, JSONResponder):
        sent.clear()
        stream = kind(send, PLAIN)
        asyncio.run(stream(start))
        asyncio.run(stream(body))
        assert sent == [start, body]


def test_the_space_of_the_first_word_is_left_out_but_not_of_a_continued_answer() -> None:
    assert texts(streamed([event(" The"), event(" wind"), DONE])) == ["The", " wind"]
    assert texts(streamed([event(" "), event("The"), DONE])) == ["The"]
    continued = LegacyRequest(chat={}, stream=True, answers=1, keep_space=True)
    assert texts(streamed([event(" The"), DONE], continued)) == [" The"]


def test_a_full_text_begins_with_what_stands_before_it() -> None:
    full = LegacyRequest(chat={}, stream=True, answers=1, before="Hello? ")
    assert texts(streamed([event("The"), DONE], full)) == ["Hello? ", "The"]
    assert streamed([error(500), DONE], full)[0]["status"] == 500


def completion(*contents: str | None, **choice: Any) -> bytes:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop", **choice}
        for i, text in enumerate(contents)
    ]
    return json.dumps({"id": "1", "choices": choices, "usage": {"total_tokens": 3}}).encode()


def test_an_answer_has_output_reason_and_usage() -> None:
    got = json.loads(answer(completion(" The wind"), LegacyRequest({}, False, 1)))
    assert got == {"output": "The wind", "finish_reason": "stop", "usage": {"total_tokens": 3}}


def test_several_answers_are_lists_of_as_many_as_asked_for() -> None:
    got = json.loads(answer(completion("a", "b", "c"), LegacyRequest({}, False, 2, before="> ")))
    assert got["output"] == ["> a", "> b"]
    assert got["finish_reason"] == ["stop", "stop"]


def test_tool_calls_and_logprobs_are_not_lost() -> None:
    message = {"content": None, "tool_calls": [{"id": "1"}]}
    got = json.loads(answer(completion(None, message=message), LegacyRequest({}, False, 1)))
    assert got["output"] == ""
    assert got["tool_calls"] == [{"id": "1"}]
    legacy = LegacyRequest({"logprobs": True}, False, 1)
    got = json.loads(answer(completion("a", logprobs={"content": []}), legacy))
    assert got["logprobs"] == {"content": []}
    assert "tool_calls" not in got

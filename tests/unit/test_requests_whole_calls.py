"""Mistral's clients get a call whole; every other event passes as it is."""

import asyncio
import json
from typing import Any

import pytest
from predict.requests.whole_calls import WholeCalls, asks_as_mistral

STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


def event(delta: dict[str, Any], finish: str | None = None, choice_index: int = 0) -> bytes:
    choice = {"index": choice_index, "delta": delta, "finish_reason": finish}
    body = json.dumps({"id": "a", "choices": [choice]}, separators=(",", ":"))
    return f"data: {body}\n\n".encode()


def piece(index: int, arguments: str | None, **more: Any) -> dict[str, Any]:
    name = more.pop("name", None)
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": index, **more, "function": function}


EVENTS = [
    event({"role": "assistant", "content": ""}),
    event({"content": "Hm"}),
    event({"tool_calls": [piece(0, "", name="f", id="a", type="function")]}),
    event({"tool_calls": [piece(0, '{"c"')]}),
    event({"tool_calls": [piece(0, ": 1}")]}),
    event({"tool_calls": [piece(1, "{}", name="g", id="b", type="function")]}),
    event({}),
    event({}, "tool_calls"),
    b"data: [DONE]\n\n",
]


def sent(pieces: list[bytes], start: Any = STREAM, status: int = 200) -> bytes:
    got: list[Any] = []

    async def send(message: Any) -> None:
        got.append(message)

    async def play() -> None:
        wrapped = WholeCalls(send)
        await wrapped({"type": "http.response.start", "status": status, "headers": [start]})
        for i, one in enumerate(pieces):
            more = i < len(pieces) - 1
            await wrapped({"type": "http.response.body", "body": one, "more_body": more})

    asyncio.run(play())
    assert got[-1]["more_body"] is False
    return b"".join(message.get("body", b"") for message in got)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_the_pieces_of_a_call_are_one_event(size: int) -> None:
    whole = b"".join(EVENTS)
    got = sent([whole[i : i + size] for i in range(0, len(whole), size)])
    calls = [
        piece(0, '{"c": 1}', name="f", id="a", type="function"),
        piece(1, "{}", name="g", id="b", type="function"),
    ]
    events = [json.loads(line[6:]) for line in got.split(b"\n\n") if line.startswith(b"data: {")]
    deltas = [one["choices"][0]["delta"] for one in events]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hm"},
        {},
        {"tool_calls": calls},
        {},
    ]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert got.endswith(b"data: [DONE]\n\n")


def test_the_calls_of_each_answer_are_its_own() -> None:
    pieces = []
    for arguments in ('{"c"', ": 1", "}"):
        for answer in (0, 1):
            more = {"id": f"id{answer}", "name": "f"} if arguments == '{"c"' else {}
            call = piece(0, arguments.replace("1", f"{answer}"), **more)
            pieces.append(event({"tool_calls": [call]}, None, answer))
    pieces += [event({}, "tool_calls", 1), event({"content": "Hm"}, None, 0)]
    pieces += [event({}, "tool_calls", 0), EVENTS[-1]]
    got = sent(pieces)
    events = [json.loads(line[6:]) for line in got.split(b"\n\n") if line.startswith(b"data: {")]
    assert [(one["choices"][0]["index"], one["choices"][0]["delta"]) for one in events] == [
        (1, {"tool_calls": [piece(0, '{"c": 1}', name="f", id="id1", type=None)]}),
        (1, {}),
        (0, {"content": "Hm"}),
        (0, {"tool_calls": [piece(0, '{"c": 0}', name="f", id="id0", type=None)]}),
        (0, {}),
    ]
    cut = sent([*pieces[:-3], EVENTS[-1]])  # an answer that broke off
    assert cut.count(b'"tool_calls":[') == 2


def test_other_answers_pass() -> None:
    text = [EVENTS[0], EVENTS[1], event({}, "stop"), EVENTS[-1]]
    assert sent(text) == b"".join(text)
    json_body = b'{"choices": [{"message": {"tool_calls":[1]}}]}'
    assert sent([json_body], (b"content-type", b"application/json")) == json_body
    assert sent([json_body], STREAM, 400) == json_body


def test_mistral_s_clients_are_told_by_their_name_or_their_words() -> None:
    named: Any = {"headers": [(b"User-Agent", b"mistral-client-python/3.7.0")]}
    other: Any = {"headers": [(b"user-agent", b"OpenAI/Python 3.3.0")]}
    assert asks_as_mistral(named, {})
    assert asks_as_mistral(other, {"safe_prompt": False})
    assert not asks_as_mistral(other, {"seed": 5})

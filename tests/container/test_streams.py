"""The number of tokens in an event of a stream, on the running server."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from local.standins.corpus import load_dialogues
from local.truss import URL
from tests.support import faults
from tests.support.container import Running

TOOLS = load_dialogues()["tools"]
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]
CHAT = "/v1/chat/completions"
TOKENS = 60
MANY = 40  # running requests, among which a stream has 5 tokens per event …
SLOW = 4  # … or this on a slow machine: predict/pacing.py keeps text flowing

pytestmark = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)


def stream(many: int, path: str = CHAT, **more: Any) -> list[list[str]]:
    """The data of the events of `many` streams that ran at once."""
    body = {"messages": QUESTION, "stream": True, "temperature": 0, **more}

    async def one(client: httpx.AsyncClient) -> list[str]:
        async with client.stream("POST", path, json=body) as response:
            assert response.status_code == 200, await response.aread()
            lines = [line async for line in response.aiter_lines()]
        return [line.removeprefix("data: ") for line in lines if line]

    async def all_of_them() -> list[list[str]]:
        limits = httpx.Limits(max_connections=many)
        async with httpx.AsyncClient(base_url=URL, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(one(client) for _ in range(many)))

    return asyncio.run(all_of_them())


def deltas(events: Iterable[str]) -> list[Any]:
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def texts(events: Iterable[str]) -> list[str]:
    return [delta["content"] for delta in deltas(events) if delta.get("content")]


LONG: dict[str, Any] = {"max_tokens": TOKENS, "ignore_eos": True, "skip_special_tokens": False}


@pytest.mark.undisturbed
def test_a_stream_alone_has_a_token_an_event(container: Running) -> None:
    """In at least one of three: vLLM merges what a slow reader has not taken yet."""
    assert any(len(texts(stream(1, **LONG)[0])) > TOKENS / 2 for _ in range(3))


def test_many_streams_have_several_tokens_an_event_and_the_same_text(
    container: Running, chats: dict[str, Any]
) -> None:
    messages, answer = chats["mistral_wind"]
    found = stream(MANY, messages=messages)
    assert {"".join(texts(events)) for events in found} == {answer}
    with faults.crowd("mistral-7b", MANY):
        (events,) = stream(1, **LONG)
    assert len(texts(events)) <= TOKENS / SLOW + 2  # the first token comes alone


def test_a_client_s_own_interval_wins(container: Running) -> None:
    for many in (1, MANY):
        assert max(len(texts(events)) for events in stream(many, **LONG, stream_interval=20)) <= 5


@pytest.mark.parametrize("interval", [1, 2, 3, 5, 8])
def test_a_tool_call_is_the_same_whatever_the_interval(container: Running, interval: int) -> None:
    question = [{"role": "user", "content": TOOLS["question"]}]
    asked = {"messages": question, "tools": TOOLS["definitions"], "stream_interval": interval}
    (events,) = stream(1, **asked)
    calls = [call for delta in deltas(events) for call in delta.get("tool_calls") or []]
    assert "".join(call["function"].get("name") or "" for call in calls) == TOOLS["call"]["name"]
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(arguments) == TOOLS["call"]["arguments"]


def test_log_probabilities_are_those_of_every_token(container: Running) -> None:
    def tokens(interval: int) -> list[str]:
        (events,) = stream(1, **LONG, logprobs=True, stream_interval=interval)
        chunks = [json.loads(event) for event in events if event != "[DONE]"]
        found = [chunk["choices"][0].get("logprobs") for chunk in chunks if chunk["choices"]]
        return [each["token"] for logprobs in found if logprobs for each in logprobs["content"]]

    assert tokens(8) == tokens(1)
    assert len(tokens(8)) == TOKENS

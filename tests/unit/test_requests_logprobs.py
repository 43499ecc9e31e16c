"""Log probabilities of a whole answer: what is too many is in tests/support/limits.py."""

import json
from typing import Any

import pytest

from tests.support.middleware import post

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}]}
ENTRIES: Any = {"PREDICT_LIMIT_LOGPROB_ENTRIES": "600"}


@pytest.mark.parametrize(
    ("path", "asked", "added"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 5}, {"max_completion_tokens": 100}),
        (CHAT, {"logprobs": True, "n": 2}, {"max_completion_tokens": 150}),
        ("/predict", {"logprobs": True, "top_logprobs": 19}, {"max_completion_tokens": 30}),
        ("/v1/responses", {"input": "hi", "top_logprobs": 2}, {"max_output_tokens": 200}),
        (CHAT, {"logprobs": True, "top_logprobs": 5, "max_tokens": 7}, {}),
        (CHAT, {"logprobs": True, "top_logprobs": 5, "stream": True}, {}),
        (CHAT, {"logprobs": False, "top_logprobs": 0}, {}),
        (CHAT, {}, {}),
    ],
)
def test_a_request_without_a_number_of_tokens_gets_as_many_as_are_allowed(
    path: str, asked: dict[str, Any], added: dict[str, Any]
) -> None:
    body = asked if path == "/v1/responses" else {**HI, **asked}
    vllm, status, _ = post(path, json.dumps(body).encode(), **ENTRIES)
    assert status == 200
    got = json.loads(vllm.bodies[0])
    got.pop("stream_interval", None)
    assert got == body | added


def test_it_gets_no_more_than_a_context_has_room_for() -> None:
    vllm, _, _ = post(CHAT, json.dumps({**HI, "logprobs": True}).encode())
    assert json.loads(vllm.bodies[0])["max_completion_tokens"] == 4096

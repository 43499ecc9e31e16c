"""What each new token of a request leaves behind is bounded, by what vLLM gets."""

import json
from typing import Any

import pytest

from tests.support.middleware import post

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
HI = {"messages": [{"role": "user", "content": "hi"}]}
ENTRIES: Any = {"PREDICT_LIMIT_LOGPROB_ENTRIES": "600", "PREDICT_LIMIT_BEAM_TOKENS": "600"}
INCLUDED = {"input": "hi", "include": ["message.output_text.logprobs"]}


@pytest.mark.parametrize(
    ("path", "asked", "added"),
    [
        (CHAT, {**HI, "logprobs": True, "top_logprobs": 5}, {"max_completion_tokens": 100}),
        (CHAT, {**HI, "logprobs": True, "n": 2}, {"max_completion_tokens": 150}),
        ("/predict", {**HI, "logprobs": 1, "top_logprobs": 19}, {"max_completion_tokens": 30}),
        (RESPONSES, {**INCLUDED, "top_logprobs": 2}, {"max_output_tokens": 200}),
        (RESPONSES, {"input": "hi", "top_logprobs": 2}, {}),
        (RESPONSES, {**INCLUDED, "top_logprobs": 1, "stream": True}, {"max_output_tokens": 100}),
        (CHAT, {**HI, "use_beam_search": True, "n": 3}, {"max_completion_tokens": 200}),
        (CHAT, {**HI, "use_beam_search": True, "logprobs": 1}, {"max_completion_tokens": 300}),
        (COMPLETIONS, {"prompt": "hi", "use_beam_search": True, "n": 3, "max_tokens": 200}, {}),
        (COMPLETIONS, {"prompt": "hi", "use_beam_search": True, "n": 60}, {}),
        (CHAT, {**HI, "logprobs": True, "top_logprobs": 5, "max_tokens": 100}, {}),
        (CHAT, {**HI, "logprobs": True, "top_logprobs": 5, "stream": True}, {}),
        (CHAT, {**HI, "logprobs": False, "top_logprobs": 0}, {}),
        (COMPLETIONS, {"prompt": "hi", "logprobs": 5}, {}),
        (CHAT, HI, {}),
    ],
)
def test_a_request_without_a_number_of_tokens_gets_as_many_as_are_allowed(
    path: str, asked: dict[str, Any], added: dict[str, Any]
) -> None:
    vllm, status, _ = post(path, json.dumps(asked).encode(), **ENTRIES)
    assert status == 200
    got = json.loads(vllm.bodies[0])
    got.pop("stream_interval", None)
    assert got == asked | added


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (CHAT, {**HI, "logprobs": True, "top_logprobs": 5, "max_tokens": 101}, "max_tokens"),
        (
            CHAT,
            {**HI, "logprobs": True, "max_tokens": 1, "max_completion_tokens": 301},
            "max_completion_tokens",
        ),
        (
            CHAT,
            {**HI, "logprobs": True, "stream": "false", "max_tokens": 301},
            "max_tokens",
        ),
        (COMPLETIONS, {"prompt": "hi", "logprobs": 0, "max_tokens": 601}, "max_tokens"),
        (COMPLETIONS, {"prompt": "hi", "logprobs": 0, "max_tokens": "0__601"}, "max_tokens"),
        (COMPLETIONS, {"prompt": "hi", "use_beam_search": 1, "max_tokens": 601}, "max_tokens"),
        (CHAT, {**HI, "use_beam_search": True, "n": 3, "max_tokens": 201}, "max_tokens"),
        (CHAT, {"prompt": "hi", "num_beams": 3, "max_new_tokens": 201}, "max_new_tokens"),
        (
            COMPLETIONS,
            {"prompt": "a", "use_beam_search": 1, "n": 9, "num_beams": 2, "max_tokens": 99},
            "max_tokens",
        ),
        (RESPONSES, {**INCLUDED, "stream": True, "max_output_tokens": 201}, "max_output_tokens"),
        (
            COMPLETIONS,
            {"prompt": ["hi", "ho"], "logprobs": 2, "max_tokens": 101, "max_output_tokens": 1},
            "max_tokens",
        ),
        (RESPONSES, {**INCLUDED, "max_output_tokens": 601, "max_tokens": 1}, "max_output_tokens"),
        (
            CHAT,
            {"prompt": "hi", "logprobs": True, "top_logprobs": 5, "max_new_tokens": 101},
            "max_new_tokens",
        ),
        (
            CHAT,
            {
                "prompt": "hi",
                "num_return_sequences": 4,
                "output_scores": True,
                "max_new_tokens": 101,
            },
            "max_new_tokens",
        ),
    ],
)
def test_more_than_is_allowed_is_refused_by_any_name(
    path: str, asked: dict[str, Any], param: str
) -> None:
    vllm, status, answer = post(path, json.dumps(asked).encode(), **ENTRIES)
    assert (vllm.bodies, status) == ([], 400), answer
    assert answer["error"]["param"] == param
    assert "at most 600 are allowed" in answer["error"]["message"]


def test_a_default_for_messages_counts_too() -> None:
    given: Any = {**ENTRIES, "PREDICT_DEFAULTS_FOR_MESSAGES": "1", "PREDICT_MAX_NEW_TOKENS": "500"}
    asked = {**HI, "logprobs": True, "top_logprobs": 5}
    _, status, answer = post(CHAT, json.dumps(asked).encode(), **given)
    assert status == 400
    assert "'max_tokens' is 500" in answer["error"]["message"]

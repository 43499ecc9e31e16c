"""One hostile request, and the valid requests that hostile ones are made from."""

from dataclasses import dataclass, field
from typing import Any

CHAT, PREDICT = "/v1/chat/completions", "/predict"
COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"

JSON = {"Content-Type": "application/json"}

Body = dict[str, Any]


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"
    chunked: bool = False  # sent in pieces, without a Content-Length


def user(content: Any) -> list[Body]:
    return [{"role": "user", "content": content}]


def tool(function: Any) -> Body:
    return {"type": "function", "function": function}


def valid(model: str) -> dict[str, Body]:
    """Route → a small request that it answers."""
    hi = user("hi")
    return {
        CHAT: {"model": model, "messages": hi, "max_tokens": 2},
        PREDICT: {"prompt": "hi", "max_new_tokens": 2},
        COMPLETIONS: {"model": model, "prompt": "hi", "max_tokens": 2},
        RESPONSES: {"model": model, "input": "hi", "max_output_tokens": 2},
        MESSAGES: {"model": model, "messages": hi, "max_tokens": 2},
        COUNT_TOKENS: {"model": model, "messages": hi},
        TOKENIZE: {"model": model, "prompt": "hi"},
        DETOKENIZE: {"model": model, "tokens": [1, 2, 3]},
    }


def rich(model: str) -> dict[str, Body]:
    """Route → a request that uses many features, which it answers or rejects."""
    function = tool({"name": "f", "parameters": {"type": "object"}})
    parts = [{"type": "text", "text": "hi"}, {"type": "text", "text": "ho"}]
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "why"},
    ]
    chat = {"model": model, "messages": turns, "max_tokens": 2, "temperature": 0.5, "top_p": 0.9}
    more = {"stop": ["x"], "seed": 1, "logit_bias": {"5": 1}, "logprobs": True, "top_logprobs": 1}
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    flat = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    block = {"name": "f", "input_schema": {"type": "object"}}
    small = valid(model)
    return {
        CHAT: {
            **chat,
            **more,
            "tools": [function],
            "tool_choice": "auto",
            "response_format": schema,
        },
        PREDICT: {"messages": turns, "max_new_tokens": 2, "top_k": 5, "bad_words_ids": [[5]]},
        COMPLETIONS: {
            **small[COMPLETIONS],
            "prompt": ["a", "b"],
            "n": 2,
            "logprobs": 1,
            "top_k": 5,
        },
        RESPONSES: {**small[RESPONSES], "input": [item], "tools": [flat], "temperature": 0.5},
        MESSAGES: {**small[MESSAGES], "messages": turns[1:], "tools": [block], "system": parts},
        COUNT_TOKENS: {**small[COUNT_TOKENS], "messages": turns[1:], "tools": [block]},
        TOKENIZE: {"model": model, "messages": turns, "tools": [function]},
        DETOKENIZE: small[DETOKENIZE],
    }

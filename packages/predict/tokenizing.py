"""Histories with calls on `/tokenize`, which shows the prompt that a conversation becomes.

pydantic reads the calls of a message when they are asked for. vLLM asks before it makes the prompt
of a chat, and forgets to on `/tokenize`, where mistral-common then finds no list.

Promises: only the calls of messages are read. A vLLM that has no such function any more is left as
it is.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any


def with_calls(tokenize: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`tokenize(self, request, …)`, whose messages have lists of calls."""

    @functools.wraps(tokenize)
    async def tokenized(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        for message in getattr(request, "messages", None) or ():
            if message.get("tool_calls") is not None:
                message["tool_calls"] = list(message["tool_calls"])
        return await tokenize(self, request, *given, **named)

    return tokenized


def install() -> None:
    from vllm.entrypoints.serve.tokenize.serving import ServingTokenization

    name = "create_tokenize"
    if hasattr(ServingTokenization, name):
        setattr(ServingTokenization, name, with_calls(getattr(ServingTokenization, name)))

"""Repairs `/tokenize`, which shows the prompt that a text or a conversation becomes.

pydantic reads the calls of a message only when they are accessed. vLLM does that before it makes
the prompt of a chat, but not on `/tokenize`, where mistral-common then finds no list. vLLM also
converts tokens to strings in the event loop, for texts of any length: a megabyte of digits held all
requests up for more than a second, and its ids alone for 0.2 s.

Promises: the calls of messages are read; a text with more tokens than the model reads is a 400, as
on other routes (long_prompts.py); tokens are converted in a thread; msgspec writes the answer, in a
tenth of the time. A vLLM without such a function is left unchanged.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.responses import JSONResponse


def with_calls(tokenize: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`tokenize(self, request, …)`, with the calls of messages as lists."""

    @functools.wraps(tokenize)
    async def tokenized(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        for message in getattr(request, "messages", None) or ():
            if message.get("tool_calls") is not None:
                message["tool_calls"] = list(message["tool_calls"])
        return await tokenize(self, request, *given, **named)

    return tokenized


def spelt_apart(tokenize: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`tokenize(self, request, …)`, which converts tokens to strings in a thread."""

    @functools.wraps(tokenize)
    async def tokenized(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        if not request.return_token_strs:
            return await tokenize(self, request, *given, **named)
        request.return_token_strs = False
        answer = await tokenize(self, request, *given, **named)
        if (tokens := getattr(answer, "tokens", None)) is None:
            return answer  # an error
        spell = self.renderer.get_tokenizer().convert_ids_to_tokens
        answer.token_strs = await asyncio.to_thread(spell, tokens)
        return answer

    return tokenized


class QuickResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def no_longer_than_read(parameters: Callable[..., Any]) -> Callable[..., Any]:
    """`build_tok_params(self, model_config)`, with the length that prompts may have."""

    @functools.wraps(parameters)
    def build(self: Any, model_config: Any) -> Any:
        return replace(parameters(self, model_config), max_total_tokens=model_config.max_model_len)

    return build


def install() -> None:
    from vllm.entrypoints.serve.tokenize import api_router, protocol
    from vllm.entrypoints.serve.tokenize.serving import ServingTokenization

    name = "create_tokenize"
    if hasattr(ServingTokenization, name):
        changed = spelt_apart(with_calls(getattr(ServingTokenization, name)))
        setattr(ServingTokenization, name, changed)
    for request in (protocol.TokenizeCompletionRequest, protocol.TokenizeChatRequest):
        if parameters := getattr(request, "build_tok_params", None):
            setattr(request, "build_tok_params", no_longer_than_read(parameters))  # noqa: B010
    if hasattr(api_router, "JSONResponse"):
        setattr(api_router, "JSONResponse", QuickResponse)  # noqa: B010  # FastAPI's elsewhere

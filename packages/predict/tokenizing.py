"""`/tokenize`, which shows the prompt that a text or a conversation becomes.

pydantic reads the calls of a message when they are asked for. vLLM asks before it makes the prompt
of a chat, and forgets to on `/tokenize`, where mistral-common then finds no list. And it spells
tokens in the event loop, where a megabyte of digits held all requests up for more than a second,
and writes the ids of two there in 0.2 s.

Promises: the calls of messages are read; tokens are spelt in a thread, those of a text that the
model can read, and others refused with a 400; an answer is written by msgspec, in a tenth of the
time. A vLLM that has no such function any more is left as it is.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from starlette.responses import JSONResponse

_apart = ThreadPoolExecutor(1, thread_name_prefix="spelling")  # more would take turns with the loop


def with_calls(tokenize: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`tokenize(self, request, …)`, whose messages have lists of calls."""

    @functools.wraps(tokenize)
    async def tokenized(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        for message in getattr(request, "messages", None) or ():
            if message.get("tool_calls") is not None:
                message["tool_calls"] = list(message["tool_calls"])
        return await tokenize(self, request, *given, **named)

    return tokenized


def spelt_apart(tokenize: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`tokenize(self, request, …)`, which spells tokens in a thread."""
    from vllm.exceptions import VLLMValidationError

    @functools.wraps(tokenize)
    async def tokenized(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        if not request.return_token_strs:
            return await tokenize(self, request, *given, **named)
        request.return_token_strs = False
        answer = await tokenize(self, request, *given, **named)
        if (tokens := getattr(answer, "tokens", None)) is None:
            return answer  # an error
        if len(tokens) > answer.max_model_len:
            raise VLLMValidationError(
                f"the text has {len(tokens)} tokens, and the strings of up to "
                f"{answer.max_model_len} are given, which the model reads; leave out "
                "'return_token_strs', or send a part of the text",
                parameter="return_token_strs",
            )
        spell = self.renderer.get_tokenizer().convert_ids_to_tokens
        loop = asyncio.get_running_loop()
        answer.token_strs = await loop.run_in_executor(_apart, spell, tokens)
        return answer

    return tokenized


class QuickResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def install() -> None:
    from vllm.entrypoints.serve.tokenize import api_router
    from vllm.entrypoints.serve.tokenize.serving import ServingTokenization

    name = "create_tokenize"
    if hasattr(ServingTokenization, name):
        changed = spelt_apart(with_calls(getattr(ServingTokenization, name)))
        setattr(ServingTokenization, name, changed)
    if hasattr(api_router, "JSONResponse"):
        setattr(api_router, "JSONResponse", QuickResponse)  # noqa: B010  # FastAPI's elsewhere

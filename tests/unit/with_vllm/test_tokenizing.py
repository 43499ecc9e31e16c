"""/tokenize gets the calls of a history as lists, and no more text than the model can read."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from predict import tokenizing
from predict.long_prompts import most_of
from starlette.responses import JSONResponse
from vllm.entrypoints.serve.tokenize.protocol import (
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeResponse,
)

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGES = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "b"},
]


def test_calls_are_read() -> None:
    async def tokenize(self: Any, request: Any) -> Any:
        return request.messages

    request = TokenizeChatRequest(model="m", messages=MESSAGES)
    assert not isinstance(request.messages[1]["tool_calls"], list)  # else vLLM needs this no more
    seen: Any = asyncio.run(tokenizing.with_calls(tokenize)(None, request))  # type: ignore[arg-type]
    assert seen[1]["tool_calls"] == [CALL]


def spelt(tokens: int, strings: bool) -> tuple[Any, list[threading.Thread]]:
    """The answer for so many tokens, and what spelt them."""
    threads: list[threading.Thread] = []

    def convert(ids: list[int]) -> list[str]:
        threads.append(threading.current_thread())
        return [*map(str, ids)]

    async def tokenize(self: Any, request: Any) -> Any:
        assert not request.return_token_strs
        return TokenizeResponse(count=tokens, max_model_len=5, tokens=[7] * tokens)

    tokenizer = SimpleNamespace(convert_ids_to_tokens=convert)
    serving = SimpleNamespace(renderer=SimpleNamespace(get_tokenizer=lambda: tokenizer))
    request = TokenizeCompletionRequest(model="m", prompt="hi", return_token_strs=strings)
    return asyncio.run(tokenizing.spelt_apart(tokenize)(serving, request)), threads  # type: ignore[arg-type]


def test_tokens_are_spelt_in_a_thread() -> None:
    answer, threads = spelt(5, strings=True)
    assert answer.token_strs == ["7"] * 5
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize("request_", [TokenizeChatRequest, TokenizeCompletionRequest])
def test_a_text_may_have_as_many_tokens_as_the_model_reads(request_: Any) -> None:
    build = tokenizing.no_longer_than_read(request_.build_tok_params)
    request = request_(messages=MESSAGES[:1], prompt="hi")
    parameters = build(request, SimpleNamespace(max_model_len=5))
    assert (parameters.max_total_tokens, parameters.truncate_prompt_tokens) == (5, None)
    assert most_of(parameters) == 5


def test_an_answer_is_written_as_vllm_writes_it() -> None:
    answer = TokenizeResponse(count=2, max_model_len=5, tokens=[7, 8], token_strs=["ä", '"\n'])
    content = answer.model_dump()
    assert tokenizing.QuickResponse(content).body == JSONResponse(content).body

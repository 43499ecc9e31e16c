"""/tokenize gets the calls of a history as lists."""

import asyncio
from typing import Any

from predict import tokenizing
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest

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

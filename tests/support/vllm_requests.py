"""The requests of each route, as vLLM parses them."""

from typing import Any

from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicMessagesRequest,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)

HI = [{"role": "user", "content": "hi"}]
# vLLM's request class for each route, and roughly the smallest valid request.
VLLM: list[tuple[str, Any, dict[str, Any]]] = [
    ("/v1/chat/completions", ChatCompletionRequest, {"messages": HI}),
    ("/v1/completions", CompletionRequest, {"prompt": "hi"}),
    ("/v1/responses", ResponsesRequest, {"input": "hi"}),
    ("/v1/messages", AnthropicMessagesRequest, {"model": "m", "messages": HI, "max_tokens": 5}),
    ("/v1/messages/count_tokens", AnthropicCountTokensRequest, {"model": "m", "messages": HI}),
    ("/tokenize", TokenizeChatRequest, {"messages": HI}),
    ("/tokenize", TokenizeCompletionRequest, {"prompt": "hi"}),
    ("/detokenize", DetokenizeRequest, {"tokens": [1]}),
]

"""Anthropic's prefill: continues an answer that a `/v1/messages` request ends with.

vLLM turns Anthropic's request into a chat request, without the two flags that make a chat continue
its last message; mistral-common then refuses the conversation. No field of the request can set
them.

Promises: changes only conversations whose last message is the assistant's. A vLLM without this
function is left unchanged.
"""

from collections.abc import Callable
from typing import Any


def continued(convert: Callable[..., Any]) -> Callable[..., Any]:
    """`convert(request, …)`, whose chat request continues a last message of the assistant."""

    def converted(*given: Any, **named: Any) -> Any:
        chat = convert(*given, **named)
        if chat.messages and chat.messages[-1].get("role") == "assistant":
            chat.add_generation_prompt = False
            chat.continue_final_message = True
        return chat

    return converted


def install() -> None:
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages as Serving

    name = "to_chat_completion_request"
    if hasattr(Serving, name):
        setattr(Serving, name, staticmethod(continued(getattr(Serving, name))))

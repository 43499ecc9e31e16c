"""Anthropic's prefill: an answer that `/v1/messages` ends with is continued.

vLLM makes a chat request of Anthropic's, and leaves out the two flags by which a chat continues its
last message; mistral-common then refuses the conversation. No field of the request can set them.

Promises: only a conversation whose last message is the assistant's is changed. A vLLM that has no
such function any more is left as it is.
"""

from collections.abc import Callable
from typing import Any


def continued(convert: Callable[..., Any]) -> Callable[..., Any]:
    """`convert(request, …)`, whose chat request continues its last message where it can."""

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

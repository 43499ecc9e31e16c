"""An answer that /v1/messages begins is continued by vLLM's own chat."""

from typing import Any

import pytest
from predict import continuing
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "continues"),
    [([USER], False), ([USER, {"role": "assistant", "content": "It is"}], True)],
)
def test_only_a_last_answer_is_continued(messages: list[Any], continues: bool) -> None:
    convert = continuing.continued(AnthropicServingMessages.to_chat_completion_request)
    request = AnthropicMessagesRequest(model="m", max_tokens=5, messages=messages)
    chat = convert(request)
    assert chat.continue_final_message is continues
    assert chat.add_generation_prompt is not continues

"""Conversations, and the prompts that mistral-common's tokenizers build from them."""

from functools import cache
from pathlib import Path
from typing import Any

import mistral_common
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from predict.requests.conversations import adapted
from predict.requests.conversations.generations import GENERATIONS
from predict.requests.conversations.notes import Notes

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"

DATA = Path(mistral_common.__file__).parent / "data"

FILES = {
    "v1": "tokenizer.model.v1",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "tekken": "tekken_240911.json",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
}

USER: dict[str, Any] = {"role": "user", "content": "hi"}

CALL_ID = "abcdefghi"


@cache
def tokenizer(name: str) -> Any:
    return MistralTokenizer.from_file(str(DATA / FILES[name]))


def tokens(name: str, messages: list[Any], continued: bool = False) -> list[int]:
    """The prompt, as vLLM requests it from mistral-common."""
    request: Any = ChatCompletionRequest.from_openai(
        messages=messages, continue_final_message=continued
    )
    return list(tokenizer(name).encode_chat_completion(request).tokens)


def fit(messages: list[Any], name: str = "v3") -> tuple[dict[str, Any], list[str]]:
    notes = Notes()
    rules = GENERATIONS["v3" if name == "tekken" else name]
    return adapted(CHAT, {"messages": messages}, rules, notes), list(notes.names)


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str = CALL_ID, arguments: Any = '{"a": 1}') -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(*made: dict[str, Any], text: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": list(made)}


def result(name: str = CALL_ID, text: Any = "14") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


FOREIGN = ["call_1", "call_abc123", "functions.f:0", "toolu_01A09q90qw90lq917835lq9", "x", "é" * 9]

ids = st.one_of(st.sampled_from([*FOREIGN, CALL_ID, "null"]), st.text(min_size=1, max_size=40))

made = st.lists(ids.map(call), max_size=2, unique_by=lambda one: str(one["id"]))

"""The prompt vLLM builds is, token for token, the one the model was trained on."""

from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from local.standins.corpus import Tokenizer
from tests.support.container import Running

Chats = dict[str, tuple[list[Any], str]]

SYSTEM = {"role": "system", "content": "Answer in one sentence, with care."}


def tokenize(container: Running, messages: list[Any]) -> list[int]:
    """The prompt that vLLM builds."""
    response = container.http.post("/tokenize", json={"messages": messages})
    assert response.status_code == 200, response.text
    tokens: list[int] = response.json()["tokens"]
    return tokens


def test_prompts_are_those_of_mistral_common(container: Running, chats: Chats) -> None:
    for messages, _ in chats.values():
        for conversation in (messages, [SYSTEM, *messages]):
            request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
                {"messages": conversation}
            )
            expected = container.tokenizer.encode_chat_completion(request).tokens
            assert tokenize(container, conversation) == expected


def test_long_conversations_are_those_of_mistral_common(container: Running) -> None:
    messages = [SYSTEM]
    for turn in range(6):
        messages.append({"role": "user", "content": f"Question {turn}: what blows, où, and why?"})
        messages.append({"role": "assistant", "content": f"Answer {turn}.\n\n* the wind"})
    messages.append({"role": "user", "content": "  And then?  "})
    request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
        {"messages": messages}
    )
    expected = container.tokenizer.encode_chat_completion(request).tokens
    assert tokenize(container, messages) == expected


@pytest.mark.parametrize("container", ["mixtral-8x7b"], indirect=True)
def test_mixtral_prompts_are_those_of_the_model_card(container: Running, chats: Chats) -> None:
    for messages, _ in chats.values():
        assert tokenize(container, messages) == model_card_tokens(container.tokenizer, messages)


def model_card_tokens(tokenizer: Tokenizer, messages: list[Any]) -> list[int]:
    """The pseudo-code of Mixtral's model card: "tokenize should not add a BOS or EOS token
    automatically, but should add a prefix space"."""
    text = tokenizer.instruct_tokenizer.tokenizer

    def tok(part: str) -> list[int]:
        return list(text.encode(part, bos=False, eos=False))  # sentencepiece adds the space

    tokens = [text.bos_id]
    for message in messages:
        if message["role"] == "user":
            tokens += tok("[INST]") + tok(message["content"]) + tok("[/INST]")
        else:
            tokens += [*tok(message["content"]), text.eos_id]
    return tokens


DIGITS = "7" * 4200  # a token each


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": DIGITS, "prompt_logprobs": 0}),
        ("/v1/completions", {"prompt": DIGITS[:1200], "prompt_logprobs": 20}),
        ("/v1/completions", {"prompt": DIGITS, "echo": True, "logprobs": 0}),
        ("/v1/completions", {"prompt": DIGITS, "echo": True, "logprobs": 0, "stream": True}),
        ("/v1/completions", {"prompt": [DIGITS[:500]] * 9, "prompt_logprobs": 1}),
        ("/v1/completions", {"prompt": DIGITS[:500], "prompt_logprobs": 1, "n": 9}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": DIGITS}], "prompt_logprobs": 1},
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_log_probabilities_of_prompts_are_bounded_by_their_tokens(
    container: Running, path: str, fields: dict[str, Any]
) -> None:
    refused = container.http.post(path, json={"max_tokens": 1, **fields})
    assert refused.status_code == 400, refused.text[:300]
    error = refused.json()["error"]
    assert error["param"] == "prompt_logprobs"
    assert "at most 24576 is allowed" in error["message"]


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_log_probabilities_of_4000_tokens_are_answered(container: Running) -> None:
    body = {"max_tokens": 1, "prompt": DIGITS[:4000], "prompt_logprobs": 0}
    taken = container.http.post("/v1/completions", json=body)
    assert taken.status_code == 200, taken.text[:300]
    assert len(taken.json()["choices"][0]["prompt_logprobs"]) > 4000

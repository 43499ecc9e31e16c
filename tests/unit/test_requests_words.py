"""What vLLM says of a request, with the place it is about."""

from typing import Any

import pytest
from predict.requests.words import explained

IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}
TEXT = {"type": "text", "text": "a"}
SEEN = [{"role": "user", "content": "a"}, {"role": "user", "content": [TEXT, IMAGE]}]


@pytest.mark.parametrize(
    ("said", "request_", "place"),
    [
        ("top_k must be 0 (disable), or at least 1, got -5.", {"top_k": -5}, "top_k"),
        ("n must be at least 1, got 0.", {"n": 0, "messages": []}, "n"),
        ("min_tokens must be at most max_tokens=5, got 9.", {"min_tokens": 9}, "min_tokens"),
        (
            "min_count must be >= 2 to detect",
            {"repetition_detection": {"min_count": 1}},
            "repetition_detection.min_count",
        ),
        (
            "Value error, thinking.budget_tokens must be less than max_tokens",
            {"max_tokens": 5, "thinking": {"budget_tokens": 9}},
            "thinking.budget_tokens",
        ),
        ("a is not a multimodal model", {"messages": SEEN}, "messages[1].content[1]"),
        ("a is not a multimodal model", {"input": SEEN}, "input[1].content[1]"),
        ("Token id 5 is out of vocabulary", {"prompt": [5]}, "prompt"),
        ("The decoder prompt cannot be empty", {"prompt": []}, "prompt"),
        ("You must pass at least one prompt", {"prompt": []}, "prompt"),
        ("Either prompt or prompt_embeds must be provided and non-empty.", {}, "prompt"),
        ("n must be 1 when using greedy sampling, got 2.", {"n": 2, "temperature": 0}, "n"),
        (
            "You must use one kind of structured outputs constraint but",
            {"structured_outputs": {"a": 5}},
            "structured_outputs",
        ),
        (
            "You can only use one kind of constraints for structured outputs",
            {"structured_outputs": {"json": {}, "regex": "a"}},
            "structured_outputs",
        ),
        (
            "Choice '[]' cannot be an empty list",
            {"structured_outputs": {"choice": []}},
            "structured_outputs.choice",
        ),
        ("This model's maximum context length is 5", {"messages": None}, "messages"),
        ("The model `a` does not exist.", {"model": "a"}, "model"),
        ("the prompt contains nothing of it", {"prompt": "a", "model": "b"}, None),
    ],
)
def test_a_place_is_named(said: str, request_: dict[str, Any], place: str | None) -> None:
    message, found = explained(said, None, request_)
    assert found == place
    assert 0 < len(message) < 300


def test_a_field_has_the_name_that_the_client_gave_it() -> None:
    said = "max_completion_tokens=9 cannot be greater than max_model_len=5"
    assert explained(said, "max_completion_tokens", {"max_tokens": 9}) == (
        "max_tokens=9 cannot be greater than max_model_len=5",
        "max_tokens",
    )
    assert explained("a", "top_p", {"top_p": 2}) == ("a", "top_p")

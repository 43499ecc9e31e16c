"""Which texts are longer than a model reads, with a tokenizer of words."""

from types import SimpleNamespace
from typing import Any

import pytest
from predict.long_prompts import (
    LONG,
    LONG_IDS,
    are_long,
    are_longer,
    most_of,
    schemas_of,
    texts_of,
    written_anew,
)


def words(text: str) -> list[int]:
    return [0] * len(text.split())


@pytest.mark.parametrize(
    ("texts", "longer"),
    [
        (["a " * 1000], False),
        (["a " * 1001], True),
        (["a " * 500, "b " * 501], True),
        (["a " * 500, "b " * 500], False),
        (["a" * LONG * 3], False),  # one word, cut in three
        ([], False),
    ],
)
def test_texts_are_longer_only_if_their_pieces_are(texts: list[str], longer: bool) -> None:
    assert are_longer(texts, words, 1000) is longer


def test_a_long_text_is_read_no_further_than_the_model_would() -> None:
    read: list[int] = []

    def encode(text: str) -> list[int]:
        read.append(len(text))
        return words(text)

    assert are_longer(["a " * 1_000_000], encode, LONG)
    assert read == [LONG] * 3  # half as many words each, and less for the cut


@pytest.mark.parametrize(
    ("message", "texts", "written"),
    [
        ({"role": "user", "content": "one"}, ["one"], []),
        ({"role": "user", "content": [{"text": "one"}, {"text": "two"}]}, ["one", "two"], []),
        ({"role": "user", "content": [{"image_url": {"url": "data:…"}}]}, [], []),
        ({"role": "user", "content": None}, [], []),
        (
            {"role": "assistant", "content": "one", "tool_calls": [{"id": 1}]},
            ["one"],
            [[{"id": 1}]],
        ),
        ({"role": "tool", "content": '{"a": "\\u0431"}'}, [], ['{"a": "\\u0431"}']),
    ],
)
def test_what_of_a_message_is_in_the_prompt_as_it_is(
    message: dict[str, Any], texts: list[str], written: list[Any]
) -> None:
    """mistral-common reads a tool's result as JSON and writes it with fewer tokens."""
    assert list(texts_of([message])) == texts
    assert list(written_anew([message])) == written


def texts(count: int, length: int) -> list[Any]:
    return [{"prompt": "a" * length}] * count


def ids(count: int, length: int) -> list[Any]:
    return [{"prompt_token_ids": [1] * length}] * count


@pytest.mark.parametrize(
    ("prompts", "long"),
    [
        (texts(1, LONG), False),
        (texts(1, LONG + 1), True),
        (texts(2, LONG // 2), False),
        (texts(63, LONG // 2), True),
        (ids(4, LONG_IDS // 4), False),
        (ids(5, LONG_IDS // 4), True),
        ([b"embeddings"], False),
        ([], False),
    ],
)
def test_the_prompts_of_a_request_are_long_together(prompts: list[Any], long: bool) -> None:
    assert are_long(prompts) is long


def test_of_tools_the_schemas_count_as_they_are_in_the_prompt() -> None:
    schema = {"properties": {"été": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert schemas_of([tool]) == '[{"properties": {"été": {"type": "string"}}}]'
    assert schemas_of([{"function": {"name": "f"}}]) == "[null]"


def test_what_vllm_counts_or_cuts_may_be_of_any_length() -> None:
    assert most_of(SimpleNamespace(truncate_prompt_tokens=None, max_total_tokens=5)) == 5
    assert most_of(SimpleNamespace(truncate_prompt_tokens=-1, max_total_tokens=5)) is None
    assert most_of(SimpleNamespace(truncate_prompt_tokens=None, max_total_tokens=None)) is None

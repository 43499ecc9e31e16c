"""Which texts are longer than a model reads, with a tokenizer of words."""

from typing import Any

import pytest
from predict.long_prompts import LONG, are_longer, texts_of


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
    ("messages", "texts"),
    [
        ([{"role": "user", "content": "one"}], ["one"]),
        ([{"content": [{"type": "text", "text": "one"}]}, {"content": "two"}], ["one", "two"]),
        ([{"content": [{"image_url": {"url": "data:…"}}]}], []),
        ([{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}], ["{}"]),
        ([{"content": None}, 5], []),
    ],
)
def test_what_of_messages_is_text(messages: list[Any], texts: list[str]) -> None:
    assert list(texts_of(messages)) == texts

"""The sizes against others' code: transformers' and vLLM's."""

import pytest

from deploy import cards, memory
from deploy.cards import Card
from tests.support import architectures
from tests.support.programs import answer_of

every_card = pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)


@pytest.fixture(scope="module")
def of_vllm() -> dict[str, dict[str, int]]:
    """vLLM's figures, by the name of the card."""
    figures: dict[str, dict[str, int]] = answer_of("tests.support.vllm_figures")
    return figures


@every_card
def test_transformers_counts_as_many_parameters(card: Card) -> None:
    assert memory.parameters(card.architecture).total == architectures.parameters(card)


@every_card
def test_vllm_counts_as_many_and_as_large_a_kv_cache(
    card: Card, of_vllm: dict[str, dict[str, int]]
) -> None:
    counted = memory.parameters(card.architecture)
    per_token = memory.kv_bytes_per_token(card.architecture)
    assert of_vllm[card.name] == {
        "kv_alone": per_token,
        "kv_of_two": per_token // 2,
        "linear": counted.linear,  # what a quantization is handed
        "total": counted.total,
    }

"""local/cpu/cpu_sampling.py against vLLM's own function, which sorts."""

import pytest
import torch
from vllm.v1.sample.ops import topk_topp_sampler

from local.cpu import cpu_sampling

TOKENS = 2000


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container; afterwards vLLM's function is its own again."""
    original = topk_topp_sampler.apply_top_k_top_p
    monkeypatch.setattr(topk_topp_sampler, "apply_top_k_top_p", original)
    cpu_sampling.register()


def rows(top_k: list[int] | None, top_p: list[float]) -> tuple[torch.Tensor | None, torch.Tensor]:
    k = None if top_k is None else torch.tensor(top_k, dtype=torch.int32)
    return k, torch.tensor(top_p)


SETTINGS = {
    "top_p alone": rows(None, [0.75, 0.1, 0.9999, 0.5]),
    "both": rows([40, 1, 500, 7], [0.75, 0.9, 0.3, 0.99]),
    "of some requests": rows([TOKENS, 40, TOKENS, 3], [1.0, 0.5, 0.9, 1.0]),
    "of none": rows([TOKENS] * 4, [1.0] * 4),
    "top_k of all tokens but one": rows([TOKENS - 1] * 4, [0.9] * 4),
}


@pytest.mark.parametrize("sharpness", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("allowed", [TOKENS, 5])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_left_is_what_vllm_leaves(
    sampled: None, name: str, allowed: int, sharpness: float
) -> None:
    """`allowed`: tokens that a grammar leaves."""
    torch.manual_seed(0)
    k, p = SETTINGS[name]
    logits = torch.randn(4, TOKENS) * sharpness
    logits[:, allowed:] = -torch.inf
    expected = topk_topp_sampler.apply_top_k_top_p_pytorch(logits.clone(), k, p)
    left = topk_topp_sampler.apply_top_k_top_p(logits.clone(), k, p)
    torch.testing.assert_close(left.softmax(1), expected.softmax(1), rtol=1e-5, atol=1e-12)


def test_tokens_as_likely_as_the_last_of_top_k_are_left_too(sampled: None) -> None:
    logits = torch.zeros(1, TOKENS)
    logits[0, :10] = 5.0
    k, p = rows([3], [0.9999])
    left = topk_topp_sampler.apply_top_k_top_p(logits.clone(), k, p)
    assert (left[0] > -torch.inf).nonzero().flatten().tolist() == [*range(10)]


def test_the_vocabulary_is_not_sorted(sampled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "sort", None)
    k, p = rows([40, TOKENS], [0.75, 0.9])
    topk_topp_sampler.apply_top_k_top_p(torch.randn(2, TOKENS) * 30, k, p)

"""local/cpu/cpu_linear.py against torch's own product."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import _custom_ops
from vllm.model_executor.layers import utils

from local.cpu import cpu_linear


@pytest.fixture
def refuses_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN, as on a processor without 16-bit arithmetic, and what a container makes of it;
    afterwards vLLM's functions are its own again."""
    create = _custom_ops.create_onednn_mm

    def without_16_bits(weight: torch.Tensor, *others: Any) -> Any:
        if weight.dtype != torch.float32:
            raise RuntimeError("could not create a primitive descriptor")
        return create(weight, *others)

    monkeypatch.setattr(utils, "check_cpu_sgl_kernel", lambda *_: False)  # of CPUs with AMX
    monkeypatch.setattr(_custom_ops, "create_onednn_mm", without_16_bits)
    monkeypatch.setattr(_custom_ops, "onednn_mm", _custom_ops.onednn_mm)
    cpu_linear.register()


def linear(weight: torch.Tensor) -> Callable[..., torch.Tensor]:
    """What vLLM multiplies by this weight with."""
    layer = SimpleNamespace(weight=weight)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    return lambda x, bias: layer.cpu_linear(x, weight, bias)


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 96)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 33])
def test_the_product_is_torch_s(
    refuses_16_bits: None, rows: int, dtype: torch.dtype, bias: torch.Tensor | None
) -> None:
    numbers = torch.Generator().manual_seed(7)
    weight = torch.randn(96, 64, generator=numbers).to(dtype)
    x = torch.randn(rows, 64, generator=numbers).to(dtype)
    added = bias if bias is None else bias.to(dtype)
    product = linear(weight)(x, added)
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), bias if added is None else added.double()
    )
    assert product.dtype == dtype
    torch.testing.assert_close(product.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_beyond_the_most_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, dtype: torch.dtype
) -> None:
    weight = torch.ones(96, 64, dtype=dtype)
    monkeypatch.setattr(cpu_linear, "MOST", 3 * weight.nbytes)
    request.getfixturevalue("refuses_16_bits")
    assert _custom_ops.create_onednn_mm(weight.t(), 32).float32
    with pytest.raises(RuntimeError, match="primitive descriptor"):
        _custom_ops.create_onednn_mm(weight.t(), 32)
    assert linear(weight)(weight[:1], None)[0, 0] == 64

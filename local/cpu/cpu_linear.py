"""Makes vLLM's CPU build multiply by 16-bit weights as fast as by others; a vLLM plugin that only
the local container loads.

On processors without 16-bit arithmetic (float16: AVX512-FP16, bfloat16: AVX512), oneDNN takes no
such weights, and vLLM falls back to torch, which processes the rows of a batch one by one: 33 ms
for 8 rows of bfloat16 and a vocabulary of 131,072, most of a stand-in's step. With the same weights
in float32, oneDNN takes 7 ms.
"""

from typing import Any

MOST = 1 << 30  # bytes of weights in float32; later ones keep their 16 bits, as they would double


def register() -> None:
    import torch
    from vllm import _custom_ops

    ops: Any = _custom_ops
    create, multiply = ops.create_onednn_mm, ops.onednn_mm
    left = MOST

    def create_onednn_mm(weight: Any, *others: Any) -> Any:
        nonlocal left
        try:
            return create(weight, *others)
        except RuntimeError:
            size = 2 * weight.nbytes
            if weight.dtype not in (torch.float16, torch.bfloat16) or size > left:
                raise  # vLLM then falls back to torch
            handler = create(weight.float(), *others)
            handler.float32 = True
            left -= size
            return handler

    def onednn_mm(handler: Any, x: Any, bias: Any) -> Any:
        if not hasattr(handler, "float32"):
            return multiply(handler, x, bias)
        return multiply(handler, x.float(), bias if bias is None else bias.float()).to(x.dtype)

    ops.create_onednn_mm, ops.onednn_mm = create_onednn_mm, onednn_mm

"""Makes vLLM's CPU build multiply by float16 weights as fast as by others; a vLLM plugin that only
the local container loads.

On processors without float16 arithmetic, oneDNN takes no float16 weights, and vLLM falls back to
torch, which processes the rows of a batch one by one: 9 ms for 16 rows and a vocabulary of 32,768,
most of a stand-in's step. With the same weights in float32, oneDNN takes 1.2 ms.
"""

from typing import Any

LARGEST = 32 << 20  # bytes; weights of this size or more stay float16, as they would double


def register() -> None:
    import torch
    from vllm import _custom_ops

    ops: Any = _custom_ops
    create, multiply = ops.create_onednn_mm, ops.onednn_mm

    def create_onednn_mm(weight: Any, *others: Any) -> Any:
        try:
            return create(weight, *others)
        except RuntimeError:
            if weight.dtype != torch.float16 or weight.nbytes >= LARGEST:
                raise  # vLLM then falls back to torch
            handler = create(weight.float(), *others)
            handler.float32 = True
            return handler

    def onednn_mm(handler: Any, x: Any, bias: Any) -> Any:
        if not hasattr(handler, "float32"):
            return multiply(handler, x, bias)
        return multiply(handler, x.float(), bias if bias is None else bias.float()).to(x.dtype)

    ops.create_onednn_mm, ops.onednn_mm = create_onednn_mm, onednn_mm

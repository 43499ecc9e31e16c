"""Fixes LoRA in vLLM's CPU build; a vLLM plugin that only the local container loads.

- Tokens without an adapter have the index -1, which the CPU kernels read as the last slot: the base
  model answered like an adapter if both were in one batch. Triton's kernels on GPUs skip such
  tokens. https://github.com/vllm-project/vllm/pull/48421
- With LoRA on, experts get Triton's kernels, which a CPU does not have. Adapters of the attention
  do not touch the experts, so the CPU's own kernels are enough.
"""

import sys
from typing import Any


def register() -> None:
    if "--enable-lora" not in sys.argv:
        return
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as experts

    ops: Any = lora_ops
    shrink = ops.bgmv_shrink

    def bgmv_shrink(
        inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0
    ) -> None:
        shrink(inputs, weights, output, indices, scaling)
        output[indices < 0] = 0

    ops.bgmv_shrink = bgmv_shrink  # sgmv_shrink calls it by this name
    punica: Any = punica_cpu
    punica.bgmv_shrink = bgmv_shrink

    method: Any = experts
    select = method.select_unquantized_moe_backend

    def select_unquantized_moe_backend(moe_config: Any) -> Any:
        moe_config.is_lora_enabled = False
        return select(moe_config)

    method.select_unquantized_moe_backend = select_unquantized_moe_backend

"""The memory a model needs: parameters, bytes of weights, KV cache and activations.

Promises: pure arithmetic on a card's `Architecture`, checked against transformers' and vLLM's own
figures (tests/platform/test_memory.py); `activation_bytes` alone is an estimate.
"""

import math
from dataclasses import dataclass

from deploy.sections import Architecture, Vision

GIB = 2**30
BYTES = 2  # of a parameter, an activation and a KV cache entry in 16 bits
BLOCK = 16  # tokens in a block of vLLM's KV cache on CUDA


def in_gib(memory: float) -> str:
    """Bytes as GiB, for a table whose header has the unit."""
    return f"{memory / GIB:.1f}"


@dataclass(frozen=True)
class Parameters:
    """Counts of parameters. `linear` are those that quantization shrinks: attention, MLP and all
    experts of the text decoder. Embeddings, output, norms, router and the vision part stay in 16
    bits, both in vLLM's online quantization and in AWQ and GPTQ repos."""

    linear: int
    other: int

    @property
    def total(self) -> int:
        return self.linear + self.other


def parameters(shape: Architecture) -> Parameters:
    width = shape.hidden_size
    attention = 2 * width * shape.head_dim * (shape.heads + shape.kv_heads)
    mlp = 3 * width * shape.intermediate_size
    experts = shape.experts.count if shape.experts else 1
    router = width * experts if shape.experts else 0
    norms = 2 * width
    other = shape.layers * (router + norms) + width + 2 * shape.vocabulary * width
    if shape.vision:
        other += _vision_parameters(shape.vision, width)
    return Parameters(shape.layers * (attention + experts * mlp), other)


def _vision_parameters(shape: Vision, text_width: int) -> int:
    """The encoder and the adapter: two linear layers, to the text decoder's width."""
    width = shape.hidden_size
    patches = shape.channels * shape.patch_size**2 * width
    layer = 4 * width * width + 3 * width * shape.intermediate_size + 2 * width
    biases = 2 * text_width if shape.adapter_bias else 0
    adapter = width * text_width + text_width * text_width + biases
    return patches + width + shape.layers * layer + adapter


def weight_bytes(shape: Architecture, bits: float) -> int:
    """All weights, with `bits` per weight in linear layers."""
    counted = parameters(shape)
    return math.ceil(counted.linear * bits / 8) + counted.other * BYTES


def adapter_bytes(shape: Architecture, rank: int, modules: list[str] | None) -> int:
    """One slot for a LoRA adapter: vLLM allocates both matrices of every module that may be
    adapted, at the largest rank, whatever the adapter contains."""
    width, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    experts = shape.experts.count if shape.experts else 1
    sizes = {
        "q_proj": width + queries,
        "k_proj": width + keys,
        "v_proj": width + keys,
        "o_proj": queries + width,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), (width + inner) * experts),
    }
    ends = sum(size for name, size in sizes.items() if modules is None or name in modules)
    return shape.layers * rank * ends * BYTES


def kv_bytes_per_token(shape: Architecture) -> int:
    """Keys and values of one token in all layers; several GPUs divide them."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES


def kv_tokens(shape: Architecture, memory: int, gpus: int = 1, block: int = BLOCK) -> int:
    """How many tokens' keys and values fit into `memory` bytes on each of `gpus` GPUs."""
    per_block = block * kv_bytes_per_token(shape) // gpus
    return max(0, memory) // per_block * block


def image_tokens(shape: Architecture) -> int:
    """The tokens of one image of the largest size: its patches, and one at the end of each row."""
    if not shape.vision:
        return 0
    rows = shape.vision.image_size // shape.vision.patch_size
    return rows * rows + rows


def activation_bytes(shape: Architecture, tokens: int, sequences: int, gpus: int) -> int:
    """Estimate of the peak of one step of `tokens` tokens on each GPU: the widest layer, the logits
    of every sequence with their sorted copy, and the images of vLLM's profile run."""
    active = shape.experts.active if shape.experts else 1
    attention = 2 * shape.head_dim * (shape.heads + shape.kv_heads) // gpus
    mlp = 3 * shape.intermediate_size * active // gpus
    routed = shape.hidden_size * active if shape.experts else 0
    layer = tokens * (2 * shape.hidden_size + attention + mlp + routed) * BYTES
    logits = sequences * shape.vocabulary * (BYTES + 4 + 4 + 8)  # fp32 twice, and indices
    return layer + logits + _image_bytes(shape, tokens)


def _image_bytes(shape: Architecture, tokens: int) -> int:
    if not shape.vision:
        return 0
    vision = shape.vision
    patches = max(tokens, image_tokens(shape))
    widths = 4 * vision.hidden_size + 3 * vision.intermediate_size + 2 * shape.hidden_size
    return patches * (widths + patches) * BYTES  # the mask separates the images

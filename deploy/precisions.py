"""The values of PRECISION=, and what each means to vLLM 0.32.

Promises: a precision has one name and the spellings users know; this vLLM accepts its flags and
variables for the models' 16-bit weights, which it converts while it loads them. Refuses any other,
with a `PrecisionError` that lists the precisions.

vLLM 0.32 no longer has bitsandbytes (a plugin that its image lacks has it). The image has Humming
instead, for the same files: int8 with a scale per output channel, int4 with a scale per 128
weights, computed in 16 bits.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.errors import UsageError

# The GPUs that vllm/vllm-openai:v0.32.0 has kernels for: torch_cuda_arch_list of its Dockerfile.
# https://github.com/vllm-project/vllm/blob/v0.32.0/docker/Dockerfile
IMAGE_CAPABILITY = 7.5

# From here on GPUs multiply fp8; below, vLLM's Marlin kernels widen each weight as they use it.
# https://docs.vllm.ai/en/v0.32.0/features/quantization/llm_compressor/fp8/
FP8_CAPABILITY = 8.9

INT4_GROUP = 128  # weights that share one 16-bit scale

# Humming compiles a kernel for each layer shape and batch size at every start of a replica, as its
# cache is empty then (~/.humming/cache). Not measured: some dozens of kernels, each of which may
# take nvcc 20 s on few cores.
COMPILING_SECONDS = 600


class PrecisionError(UsageError):
    """An unknown PRECISION=."""


@dataclass(frozen=True)
class Precision:
    """`bits` per weight of a linear layer, including its share of a group's scale. A scale for a
    whole channel or layer is not counted: it is less than 1 in 500."""

    name: str
    bits: float | None  # None: the card's figure for its quantized repo
    capability: float  # the lowest CUDA compute capability vLLM takes it on
    dtype: str | None = None  # for the computation; None: the card's, if the GPU supports it
    quantization: str | None = None  # vLLM's --quantization
    native: str | None = None  # the same, on GPUs that multiply fp8
    environment: Mapping[str, str] = field(default_factory=dict)
    startup_seconds: int = 0  # added to the start
    given: bool = False  # the weights are already quantized, and vLLM reads how

    @property
    def repo(self) -> bool:
        """Whether it needs quantized weights, from a repo that the card names."""
        return self.bits is None

    def quantization_on(self, capability: float) -> str | None:
        return self.native if self.native and capability >= FP8_CAPABILITY else self.quantization

    @property
    def quantized(self) -> bool:
        return self.bits is None or self.bits < 16


def _humming(name: str, bits: float, group: int) -> Precision:
    # https://github.com/vllm-project/vllm/pull/34556; a group of 0 is a whole output channel
    online = json.dumps({"dtype": name, "group_size": group})
    variables = {"VLLM_HUMMING_ONLINE_QUANT_CONFIG": online}
    return Precision(
        name,
        bits,
        7.5,
        quantization="humming",
        environment=variables,
        startup_seconds=COMPILING_SECONDS,
    )


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("bf16", 16, 8.0, dtype="bfloat16"),
        Precision("fp16", 16, IMAGE_CAPABILITY, dtype="float16"),
        # https://docs.vllm.ai/en/v0.32.0/features/quantization/online/
        # One scale per output channel and one per token's activations, like published fp8
        # checkpoints (FP8_DYNAMIC); vLLM rejects it on GPUs that do not multiply fp8.
        Precision("fp8", 8, 7.5, quantization="fp8_per_tensor", native="fp8_per_channel"),
        _humming("int8", 8, 0),
        _humming("int4", 4 + 16 / INT4_GROUP, INT4_GROUP),
        # vLLM reads the quantization from the repo's config.json.
        Precision("awq", None, 7.5),
        Precision("gptq", None, 7.5),
    )
}

# For weights that are already quantized, by QUANTIZED=. vLLM reads the quantization from their
# config.json, so it needs no flag. Bits include the share of a group's scale and zero point.
CHECKPOINTS = {
    name: Precision(name, bits, 7.5, given=True)
    for name, bits in (
        ("fp8", 8),
        ("int8", 8),
        ("w4a16", 4 + 16 / 128),
        ("awq", 4 + 20 / 128),
        ("gptq", 4 + 20 / 128),
    )
}

SPELLINGS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "8-bit": "int8",
    "4-bit": "int4",
}


def parse(name: str) -> Precision:
    """By name or spelling, in upper or lower case, with or without spaces and hyphens."""
    known = {name: name for name in PRECISIONS} | SPELLINGS
    for spelling, meant in known.items():
        if _bare(spelling) == _bare(name):
            return PRECISIONS[meant]
    if (read := _bare(name)) in CHECKPOINTS:
        raise PrecisionError(
            f"PRECISION={name!r} is not a precision that this project quantizes to; for weights "
            f"that are already quantized so: WEIGHTS=hf://owner/name QUANTIZED={read}"
        )
    raise PrecisionError(
        f"PRECISION={name!r} is not known; use one of {', '.join(PRECISIONS)} "
        f"(or {', '.join(SPELLINGS)})"
    )


def _bare(name: str) -> str:
    return re.sub(r"[\s-]", "", name).lower()

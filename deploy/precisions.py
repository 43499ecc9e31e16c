"""What PRECISION= may be, and what each becomes for vLLM 0.32.

Promises: a precision has one name and the spellings users know; the flags and variables are ones
that this vLLM takes for weights in 16 bits, as the models' repos hold them, which it converts while
it loads them. Refuses, with a `PrecisionError` that names the precisions there are, any other.

vLLM 0.32 has no bitsandbytes any more (a plugin outside its image has it). What it has in its
place, in the image and for the same files, is Humming: int8 with a scale per output channel, int4
with a scale for every 128 weights, computed in 16 bits.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.errors import UsageError

# What vllm/vllm-openai:v0.32.0 has kernels for: torch_cuda_arch_list of its Dockerfile.
# https://github.com/vllm-project/vllm/blob/v0.32.0/docker/Dockerfile
IMAGE_CAPABILITY = 7.5

# From here on GPUs multiply fp8; below, vLLM's Marlin kernels widen each weight when it is used.
# https://docs.vllm.ai/en/v0.32.0/features/quantization/llm_compressor/fp8/
FP8_CAPABILITY = 8.9

INT4_GROUP = 128  # weights with one scale of 16 bits

# Humming compiles a kernel for each shape of layer and size of batch, at every start of a replica,
# whose cache is empty (~/.humming/cache). Not measured: some dozens of kernels, of which each may
# take nvcc 20 s on few cores.
COMPILING_SECONDS = 600


class PrecisionError(UsageError):
    """A PRECISION= that is not known."""


@dataclass(frozen=True)
class Precision:
    """`bits` are those of one weight of a linear layer, with its share of a group's scale where it
    has one: a scale for a whole channel or layer is not counted, it is less than 1 in 500."""

    name: str
    bits: float | None  # None: what the card says of its quantized repo
    capability: float  # the least CUDA compute capability vLLM takes it on
    dtype: str | None = None  # what is computed in; None: what the card says, where the GPU can
    quantization: str | None = None  # of vLLM's --quantization
    native: str | None = None  # the same, on GPUs that multiply fp8
    environment: Mapping[str, str] = field(default_factory=dict)
    startup_seconds: int = 0  # what a start may take longer
    given: bool = False  # the weights are quantized already, and vLLM reads how

    @property
    def repo(self) -> bool:
        """Only as weights that are quantized already, where the card names some."""
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
        # A scale for each output channel and for each token's activations, which is what published
        # fp8 checkpoints have (FP8_DYNAMIC); vLLM refuses it on GPUs that do not multiply fp8.
        Precision("fp8", 8, 7.5, quantization="fp8_per_tensor", native="fp8_per_channel"),
        _humming("int8", 8, 0),
        _humming("int4", 4 + 16 / INT4_GROUP, INT4_GROUP),
        # vLLM reads how they are quantized in their config.json.
        Precision("awq", None, 7.5),
        Precision("gptq", None, 7.5),
    )
}

# Of weights that somebody has quantized already, by QUANTIZED=. vLLM reads how in their
# config.json, so no flag says it. Bits with the share of a group's scale and zero point.
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
    """By name or spelling, in letters of any size, with or without spaces and hyphens."""
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

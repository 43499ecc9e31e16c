"""A model at a precision on GPUs: memory, context, requests. Whether it fits: deploy/fit.py.

Promises: pure arithmetic on the facts in templates/; needs no GPU. The memory that vLLM needs
besides weights and KV cache is an estimate on the high side, and marked as such; docs/hardware.md
has the calculation.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from deploy import memory, precisions
from deploy.cards import Card
from deploy.gpus import Gpu
from deploy.memory import GIB
from deploy.precisions import FP8_CAPABILITY, Precision
from deploy.sections import LONGEST_STARTUP, USUAL_STARTUP, Files, Formats, Quantized

# vLLM's share of the memory that CUDA reports: its own default, but at least 1.5 GiB stay free for
# what it does not see: the CUDA context, fragmentation, peaks above the profiled one.
UTILIZATION = 0.92
LEFT_FREE = 1.5 * GIB

# Assumptions, per GPU, not measured. Libraries: workspaces of cuBLAS and FlashInfer, modules loaded
# later; and with several GPUs NCCL's buffers. Graphs: all CUDA graphs together.
LIBRARIES = 0.5 * GIB
NCCL = 0.5 * GIB
GRAPHS = 0.75 * GIB

# Of own weights, by FORMAT=; without it vLLM takes Mistral's if it finds a params.json.
OWN_FORMATS = {
    None: {"config": "auto", "load": "auto"},
    "hf": {"config": "hf", "load": "safetensors"},
    "mistral": {"config": "mistral", "load": "mistral"},
}

ROOM = 0.95  # the share of the KV cache that one planned request may fill: a margin for our errors
CONTEXT_STEP = 256

# With the cards' queues, nginx has connections for this many requests (deploy/config.py).
MOST_SEQUENCES = 256
SHORT_REQUEST = 512  # tokens: the batch size is the number of these that fit
USUAL_REQUEST = 2048  # tokens: a replica gets as many requests as fit of these


@dataclass(frozen=True)
class Plan:
    """A model at a precision on `count` GPUs, whether or not it runs there. Memory in bytes, of one
    GPU where stated."""

    card: Card
    gpu: Gpu
    count: int
    precision: Precision
    asked_context: int | None = None

    @property
    def checkpoint(self) -> Files:
        """The repo that the weights come from."""
        named = quantized_repos(self.card) if self.precision.repo else {}
        return named.get(self.precision.name, self.card.weights)

    @property
    def formats(self) -> Formats:
        repo, own = self.checkpoint, self.card.own_weights
        if own:
            return self.card.formats.model_copy(update=OWN_FORMATS[own.format])
        return repo.formats if isinstance(repo, Quantized) else self.card.formats

    @property
    def accelerator(self) -> str:
        return f"{self.gpu.name}:{self.count}"

    @property
    def where(self) -> str:
        """As people write it: 2×A100."""
        return f"{self.count}×{self.gpu.name}"

    @property
    def dtype(self) -> str:
        """vLLM's --dtype: of activations and of everything that is not quantized."""
        if self.precision.dtype:
            return self.precision.dtype
        usual: str = self.card.hardware.precision
        needed = precisions.parse(usual).capability
        return usual if self.gpu.capability >= needed else "float16"

    @property
    def quantization(self) -> str | None:
        """vLLM's --quantization on this GPU."""
        return self.precision.quantization_on(self.gpu.capability)

    @property
    def utilization(self) -> float:
        """vLLM's --gpu-memory-utilization, in steps of 0.01."""
        usable = self.gpu.usable * GIB
        return math.floor(min(UTILIZATION, 1 - LEFT_FREE / usable) * 100) / 100

    @property
    def budget(self) -> int:
        """vLLM's memory, on one GPU."""
        return int(self.gpu.usable * GIB * self.utilization)

    @cached_property
    def weights(self) -> int:
        """On all GPUs together."""
        repo = self.checkpoint
        if isinstance(repo, Quantized):
            bits = repo.bits + (16 + repo.bits) / repo.group_size
        else:
            bits = self.precision.bits or 16
        return memory.weight_bytes(self.card.architecture, bits)

    @cached_property
    def beside(self) -> int:
        """Estimate, on one GPU: libraries, CUDA graphs, and the activations of a step."""
        shape, tokens = self.card.architecture, self.gpu.batched_tokens
        activations = memory.activation_bytes(shape, tokens, MOST_SEQUENCES, self.count)
        libraries = int(LIBRARIES + GRAPHS + (NCCL if self.count > 1 else 0))
        return libraries + activations + self.adapters

    @property
    def adapters(self) -> int:
        """LoRA slots, on one GPU; counted in full, though several GPUs divide most of it."""
        given = self.card.adapters
        slot = memory.adapter_bytes(self.card.architecture, given.rank, given.modules)  # type: ignore[arg-type]
        return len(given.sources) * slot

    @property
    def kv_memory(self) -> int:
        """On one GPU; negative if not even the weights fit."""
        return self.budget - math.ceil(self.weights / self.count) - self.beside

    @property
    def kv_tokens(self) -> int:
        return memory.kv_tokens(self.card.architecture, self.kv_memory, self.count)

    @property
    def longest_context(self) -> int:
        """The longest max_model_len that fits, with a margin for errors of the estimate."""
        fits = int(self.kv_tokens * ROOM) // CONTEXT_STEP * CONTEXT_STEP
        return min(fits, self.card.context.length)

    @property
    def context(self) -> int:
        """vLLM's --max-model-len."""
        return self.asked_context or self.longest_context

    @property
    def whole_context(self) -> int | None:
        """The model's, if the user asked for no shorter one and it does not fit."""
        whole = self.card.context.length
        return whole if self.asked_context is None and self.context < whole else None

    @property
    def full_context_requests(self) -> int:
        return self._requests(self.context)

    @property
    def requests_2k(self) -> int:
        return self.kv_tokens // USUAL_REQUEST

    @property
    def max_num_seqs(self) -> int:
        return min(MOST_SEQUENCES, self._requests(SHORT_REQUEST))

    @property
    def concurrency_target(self) -> int:
        """Requests that a replica gets at a time: as many usual ones as fit, each with an image of
        the largest size if the model takes images."""
        usual = USUAL_REQUEST + memory.image_tokens(self.card.architecture)
        return min(self.max_num_seqs, self._requests(usual))

    def _requests(self, tokens: int) -> int:
        """How many requests of `tokens` tokens fit at once; none is longer than the context."""
        return self.kv_tokens // max(1, min(tokens, self.context))

    @property
    def startup_seconds(self) -> int:
        """How long a replica may take to become ready: the card's time or Baseten's default,
        whichever is longer, plus the precision's."""
        wanted = max(self.card.hardware.startup_seconds, USUAL_STARTUP)
        return min(wanted + self.precision.startup_seconds, LONGEST_STARTUP)

    @property
    def verdict(self) -> str:
        where = f"{short(self.card)} in {self.precision.name} fits on {self.where}"
        note = f" ({self.note})" if self.note else ""
        full = self.full_context_requests
        cut = f" of the model's {self.whole_context}" if self.whole_context else ""
        usual = f", or {self.requests_2k} of {USUAL_REQUEST} tokens"
        if self.context < USUAL_REQUEST:
            usual = ""
        return (
            f"{where}{note}: {gib(self.weights)} of weights, about "
            f"{gib(self.beside * self.count)} beside, {gib(self.kv_memory * self.count)} of KV "
            f"cache; a context of {self.context}{cut} tokens, {full} such "
            f"request{'' if full == 1 else 's'} at once{usual}."
        )

    @property
    def note(self) -> str:
        """What the precision means on this GPU, if that is not obvious."""
        if self.precision.given:
            return "as the weights are"
        if self.precision.name == "fp8":
            native = self.gpu.capability >= FP8_CAPABILITY
            return "" if native else "weights only: this GPU computes in 16 bits"
        return "weights only: computed in 16 bits" if self.precision.quantized else ""


def short(card: Card) -> str:
    """The model's name without its version: "Mixtral 8x7B"."""
    return card.title.split(" Instruct")[0]


def gib(memory: float) -> str:
    value = memory / GIB
    return f"{value:.0f} GiB" if value >= 20 else f"{value:.1f} GiB"


def quantized_repos(card: Card) -> dict[str, Quantized]:
    """The card's quantized repos by precision."""
    return {repo.precision: repo for repo in card.quantized}

"""Does it fit? A model at a precision on GPUs: memory, context, requests; or why not.

Promises: pure arithmetic on the facts in templates/, without any GPU; what it accepts is what
deploy/config.py deploys, and it accepts whatever it advises. Refuses, with a `PlanError` of one
line that says why and what would do: a context the model does not have, a precision the GPU has no
kernels for, a number of GPUs that does not divide the heads, weights or a context that do not fit.
What vLLM needs beside weights and KV cache is an estimate, made on the high side, and marked as
such; docs/hardware.md has the reckoning.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from deploy import gpus, memory, precisions
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.gpus import Gpu
from deploy.memory import GIB
from deploy.precisions import FP8_CAPABILITY, IMAGE_CAPABILITY, PRECISIONS, Precision
from deploy.sections import LONGEST_STARTUP, USUAL_STARTUP, Files, Formats, Quantized

# Of the memory CUDA shows, what is vLLM's: its own default, and 1.5 GiB at least stay free for
# what it does not see: the CUDA context, fragments, peaks above the profiled one.
UTILIZATION = 0.92
LEFT_FREE = 1.5 * GIB

# Assumptions, per GPU, measured nowhere. Libraries: workspaces of cuBLAS and FlashInfer, modules
# loaded later; and with several GPUs NCCL's buffers. Graphs: all CUDA graphs together.
LIBRARIES = 0.5 * GIB
NCCL = 0.5 * GIB
GRAPHS = 0.75 * GIB

# Of own weights, by FORMAT=; without it vLLM takes Mistral's where it finds a params.json.
OWN_FORMATS = {
    None: {"config": "auto", "load": "auto"},
    "hf": {"config": "hf", "load": "safetensors"},
    "mistral": {"config": "mistral", "load": "mistral"},
}

ROOM = 0.95  # of the KV cache that one request may be planned to fill: the rest is for our errors
CONTEXT_STEP = 256
LEAST_CONTEXT = 256
WORTHWHILE_CONTEXT = 4096  # a smaller GPU count than one that fits this is not chosen by itself

# With the cards' queues these are the requests that nginx has connections for (deploy/config.py).
MOST_SEQUENCES = 256
SHORT_REQUEST = 512  # tokens: as many as fit of these are batched
USUAL_REQUEST = 2048  # tokens: a replica is given as many as fit of these


@dataclass(frozen=True)
class Plan:
    """A model at a precision on `count` GPUs, whether it runs there or not. Memory in bytes; of one
    GPU where it says so."""

    card: Card
    gpu: Gpu
    count: int
    precision: Precision
    asked_context: int | None = None

    @property
    def checkpoint(self) -> Files:
        """The repo whose weights are loaded."""
        return _repos(self.card).get(self.precision.name, self.card.weights)

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
    def dtype(self) -> str:
        """vLLM's --dtype: what activations and whatever is not quantized are in."""
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
        """vLLM's --gpu-memory-utilization, in hundredths."""
        usable = self.gpu.usable * GIB
        return math.floor(min(UTILIZATION, 1 - LEFT_FREE / usable) * 100) / 100

    @property
    def budget(self) -> int:
        """Of one GPU."""
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
        """Slots of LoRA adapters, on one GPU; counted whole, though several share most of it."""
        given = self.card.adapters
        slot = memory.adapter_bytes(self.card.architecture, given.rank, given.modules)  # type: ignore[arg-type]
        return len(given.sources) * slot

    @property
    def kv_memory(self) -> int:
        """Of one GPU; negative where not even the weights fit."""
        return self.budget - math.ceil(self.weights / self.count) - self.beside

    @property
    def kv_tokens(self) -> int:
        return memory.kv_tokens(self.card.architecture, self.kv_memory, self.count)

    @property
    def longest_context(self) -> int:
        """The longest max_model_len that fits, with room for errors of the estimate."""
        fits = int(self.kv_tokens * ROOM) // CONTEXT_STEP * CONTEXT_STEP
        return min(fits, self.card.context.length)

    @property
    def context(self) -> int:
        """vLLM's --max-model-len."""
        return self.asked_context or self.longest_context

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
        """Requests a replica is given at a time: as many usual ones as fit, each with an image of
        the largest size where the model takes images."""
        usual = USUAL_REQUEST + memory.image_tokens(self.card.architecture)
        return min(self.max_num_seqs, self._requests(usual))

    def _requests(self, tokens: int) -> int:
        """How many of so many tokens fit at once; a request is never longer than the context."""
        return self.kv_tokens // max(1, min(tokens, self.context))

    @property
    def startup_seconds(self) -> int:
        """How long a replica may take to be ready: the card's or, if that is longer, what Baseten
        gives by itself; and what the precision adds."""
        wanted = max(self.card.hardware.startup_seconds, USUAL_STARTUP)
        return min(wanted + self.precision.startup_seconds, LONGEST_STARTUP)

    @property
    def verdict(self) -> str:
        where = f"{short(self.card)} in {self.precision.name} fits on {self.count}×{self.gpu.name}"
        note = f" ({self.note})" if self.note else ""
        full = self.full_context_requests
        usual = f", or {self.requests_2k} of {USUAL_REQUEST} tokens"
        if self.context < USUAL_REQUEST:
            usual = ""
        return (
            f"{where}{note}: {_gib(self.weights)} of weights, about "
            f"{_gib(self.beside * self.count)} beside, {_gib(self.kv_memory * self.count)} of KV "
            f"cache; a context of {self.context} tokens, {full} such "
            f"request{'' if full == 1 else 's'} at once{usual}."
        )

    @property
    def note(self) -> str:
        """What the precision means on this GPU, where that is not plain."""
        if self.precision.name == "fp8":
            native = self.gpu.capability >= FP8_CAPABILITY
            return "" if native else "weights only: this GPU computes in 16 bits"
        if self.precision in precisions.CHECKPOINTS.values():
            return ""
        return "weights only: computed in 16 bits" if self.precision.quantized else ""


class PlanError(UsageError):
    """A choice that cannot run. `tried` is what was asked for, on as many GPUs as there can be
    where their number was left open; `choices` run, each as make takes it, or as "2×A100"."""

    def __init__(self, tried: Plan, reason: str, choices: list[str]) -> None:
        *but_last, last = choices or ["a smaller model"]
        self.tried, self.reason, self.choices = tried, reason, choices
        self.advice = f"Use {', '.join(but_last)}, or {last}" if but_last else f"Use {last}"
        super().__init__(f"{reason}. {self.advice}")


def choose(
    card: Card,
    gpu: str | None = None,
    precision: str | None = None,
    context: int | None = None,
) -> Plan:
    """The plan for a user's words; what is left out is the card's, and a GPU without a count gets
    as few as will do. Raises UsageError."""
    own = card.own_weights
    if own and own.quantized:
        if precision is not None:
            raise UsageError(
                f"PRECISION={precision!r}: the weights are {own.quantized} already and are served "
                "as they are; leave PRECISION= out"
            )
        chosen = precisions.CHECKPOINTS[own.quantized]
    else:
        chosen = precisions.parse(precision or card.hardware.precision)
    if gpu is None:
        return fit(card, gpus.load(card.hardware.accelerator), card.hardware.count, chosen, context)
    return fit(card, *gpus.parse(gpu), chosen, context)


def fit(
    card: Card, gpu: Gpu, count: int | None, precision: Precision, context: int | None = None
) -> Plan:
    """The plan, with the smallest count that fits when `count` is None; PlanError if none does."""
    if found := _found(card, gpu, count, precision, context):
        return found
    possible = _counts(card, gpu) or gpu.counts
    tried = Plan(card, gpu, count or possible[-1], precision, context)
    raise PlanError(tried, _refusal(tried) or _does_not_fit(tried), list(_advice(tried, count)))


def _found(
    card: Card, gpu: Gpu, count: int | None, precision: Precision, context: int | None
) -> Plan | None:
    """The plan with `count` GPUs, or else with the fewest, that is not refused and fits."""
    for number in [count] if count else _counts(card, gpu):
        least = _least_context(card)
        if count is None:
            least = max(least, min(WORTHWHILE_CONTEXT, card.context.length))
        found = Plan(card, gpu, number, precision, context)
        if not _refusal(found) and found.longest_context >= (context or least):
            return found
    return None


def _least_context(card: Card) -> int:
    return max(LEAST_CONTEXT, memory.image_tokens(card.architecture))


def _counts(card: Card, gpu: Gpu) -> list[int]:
    """How many of this GPU an instance may have that divide the model's heads."""
    shape = card.architecture
    return [n for n in gpu.counts if shape.heads % n == 0 and shape.kv_heads % n == 0]


def _repos(card: Card) -> dict[str, Quantized]:
    """The card's quantized repos by precision."""
    return {repo.precision: repo for repo in card.quantized}


# --- why not ---


def _refusal(tried: Plan) -> str | None:
    """Why this cannot run, however much memory there is."""
    card, gpu, precision, asked = tried.card, tried.gpu, tried.precision, tried.asked_context
    shape, least = card.architecture, _least_context(card)
    if asked is not None and asked > card.context.length:
        return f"{short(card)} has a context of {card.context.length} tokens, not {asked}"
    if asked is not None and asked < least:
        why = "an image may need" if shape.vision else "is the least"
        return f"a context of {asked} tokens is too short: {least} {why}"
    if gpu.capability < IMAGE_CAPABILITY:
        return (
            f"vLLM's image has no kernels for {gpu.name}: it has compute capability "
            f"{gpu.capability}, and they begin at {IMAGE_CAPABILITY}"
        )
    if gpu.capability < precision.capability:
        return (
            f"{precision.name} needs compute capability {precision.capability}, and {gpu.name} has "
            f"{gpu.capability}"
        )
    if precision.repo and card.own_weights:
        name = precision.name
        return f"PRECISION={name} is a repo of the card's; say QUANTIZED={name} of your own weights"
    if precision.repo and precision.name not in _repos(card):
        return f"{card.name}.yaml names no {precision.name.upper()} repo under quantized"
    if tried.count not in _counts(card, gpu):
        return (
            f"{tried.count}×{gpu.name} do not divide the {shape.heads} heads and {shape.kv_heads} "
            f"KV heads of {short(card)}"
        )
    return None


def _does_not_fit(tried: Plan) -> str:
    what = f"{short(tried.card)} in {tried.precision.name}"
    where = f"{tried.count}×{tried.gpu.name}"
    nameplate = tried.count * tried.gpu.memory
    longest = tried.longest_context
    if tried.asked_context and longest >= _least_context(tried.card):
        return f"{what} on {where} fits a context of {longest} tokens, not {tried.asked_context}"
    if tried.weights > nameplate * GIB:
        return f"{what} needs {_gib(tried.weights)} for weights; {where} has {nameplate} GiB"
    return (
        f"{what} needs {_gib(tried.weights)} for weights, about {_gib(tried.beside * tried.count)} "
        f"beside, and a KV cache; {where} has {nameplate} GiB, of which vLLM gets "
        f"{_gib(tried.budget * tried.count)}"
    )


# --- what would do instead ---


def _advice(tried: Plan, count: int | None) -> Iterator[str]:
    """Options that run, near the one that does not: a context the model has, the longest that fits
    there, other hardware. `count` is None where it was left open."""
    card, asked = tried.card, tried.asked_context
    context, changed = asked, ""
    if asked is not None:
        context = min(max(asked, _least_context(card)), card.context.length)
        changed = f" CONTEXT={context}" if context != asked else ""
        if _found(card, tried.gpu, count, tried.precision, context):
            yield f"CONTEXT={context}"
            return
        longest = tried.longest_context
        if _found(card, tried.gpu, count, tried.precision, longest):
            yield f"CONTEXT={longest}"
    for choice in _other_hardware(tried, count, context):
        yield f"{choice}{changed}"


def _other_hardware(tried: Plan, count: int | None, context: int | None) -> Iterator[str]:
    """Another number of the same GPU, a smaller precision on as many, or else another GPU."""
    card, gpu, precision = tried.card, tried.gpu, tried.precision
    numbers = []
    if count is not None and count not in _counts(card, gpu):
        every = _counts(card, gpu)
        numbers = [number for number in every if _found(card, gpu, number, precision, context)]
    elif count is not None and (more := _found(card, gpu, None, precision, context)):
        numbers = [more.count]
    yield from (f"{number}×{gpu.name}" for number in numbers)
    bits = precision.bits or PRECISIONS["int4"].bits or 0
    given = card.own_weights and card.own_weights.quantized
    every_smaller = [] if given else [PRECISIONS[name] for name in ("fp16", "fp8", "int8", "int4")]
    smaller = [one for one in every_smaller if one != precision and (one.bits or 0) <= bits]
    for one in smaller:
        if _found(card, gpu, count, one, context):
            yield f"PRECISION={one.name}"
            return
    if numbers:
        return
    for one in (precision, *smaller):
        for other in (other for other in gpus.load_all() if other.usable > gpu.usable):
            if _found(card, other, None, one, context):
                changed = f" PRECISION={one.name}" if one != precision else ""
                yield f"GPU={other.name}{changed}"
                return


def short(card: Card) -> str:
    """The model's name without its version: "Mixtral 8x7B"."""
    return card.title.split(" Instruct")[0]


def _gib(memory: float) -> str:
    value = memory / GIB
    return f"{value:.0f} GiB" if value >= 20 else f"{value:.1f} GiB"

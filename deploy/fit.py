"""Does it fit? A choice of model, precision and GPUs → a plan that runs, or why none does.

Promises: pure; deploy/config.py deploys what it accepts, and it accepts whatever it advises.
Refuses, with a `PlanError` of one line that gives the reason and what would run: a context longer
than the model's, a precision that the GPU has no kernels for, a number of GPUs that does not divide
the heads, weights or a context that do not fit.
"""

from collections.abc import Iterator

from deploy import gpus, memory, precisions
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.gpus import Gpu
from deploy.memory import GIB
from deploy.plan import Plan, gib, quantized_repos, short
from deploy.precisions import IMAGE_CAPABILITY, PRECISIONS, Precision

LEAST_CONTEXT = 256
WORTHWHILE_CONTEXT = 4096  # tokens; no GPU count with less is chosen automatically


class PlanError(UsageError):
    """A choice that cannot run. `tried` is what was asked for, on the largest number of GPUs if the
    number was left open; `choices` would run, each as make takes it, or as "2×A100"."""

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
    """The plan for a user's options; the card supplies what is left out, and a GPU without a count
    gets the smallest that works. Raises UsageError."""
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
        usual = gpus.load(card.hardware.accelerator, f"{card.name}.yaml: hardware.accelerator")
        return fit(card, usual, card.hardware.count, chosen, context)
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
    """The plan with `count` GPUs, or else with the fewest, that is allowed and fits."""
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
    """The counts of this GPU that an instance may have and that divide the model's heads."""
    shape = card.architecture
    return [n for n in gpu.counts if shape.heads % n == 0 and shape.kv_heads % n == 0]


# --- why not ---


def _refusal(tried: Plan) -> str | None:
    """Why this cannot run, regardless of memory."""
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
    if precision.repo and precision.name not in quantized_repos(card):
        name = precision.name
        return (
            f"{card.name}.yaml names no {name.upper()} repo under quantized, and PRECISION={name} "
            f"does not quantize; for weights that already are: WEIGHTS=hf://owner/name "
            f"QUANTIZED={name}"
        )
    if tried.count not in _counts(card, gpu):
        return (
            f"{tried.where} do not divide the {shape.heads} heads and {shape.kv_heads} "
            f"KV heads of {short(card)}"
        )
    return None


def _does_not_fit(tried: Plan) -> str:
    what = f"{short(tried.card)} in {tried.precision.name}"
    where = tried.where
    nameplate = tried.count * tried.gpu.memory
    longest = tried.longest_context
    if tried.asked_context and longest >= _least_context(tried.card):
        return f"{what} on {where} fits a context of {longest} tokens, not {tried.asked_context}"
    if tried.weights > nameplate * GIB:
        return f"{what} needs {gib(tried.weights)} for weights; {where} has {nameplate} GiB"
    return (
        f"{what} needs {gib(tried.weights)} for weights, about {gib(tried.beside * tried.count)} "
        f"beside, and a KV cache; {where} has {nameplate} GiB, of which vLLM gets "
        f"{gib(tried.budget * tried.count)}"
    )


# --- what would do instead ---


def _advice(tried: Plan, count: int | None) -> Iterator[str]:
    """Options that run and are close to the one that does not: a context the model supports, the
    longest that fits, other hardware. `count` is None if it was left open. A choice that would
    shorten the model's context says so in brackets."""
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
    numbers = list[Plan]()
    if count is not None and count not in _counts(card, gpu):
        every = (_found(card, gpu, number, precision, context) for number in _counts(card, gpu))
        numbers = [found for found in every if found]
    elif count is not None and (more := _found(card, gpu, None, precision, context)):
        numbers = [more]
    yield from (f"{found.where}{_cut(found)}" for found in numbers)
    bits = precision.bits or PRECISIONS["int4"].bits or 0
    given = card.own_weights and card.own_weights.quantized
    every_smaller = [] if given else [PRECISIONS[name] for name in ("fp16", "fp8", "int8", "int4")]
    smaller = [one for one in every_smaller if one != precision and (one.bits or 0) <= bits]
    for one in smaller:
        if found := _found(card, gpu, count, one, context):
            yield f"PRECISION={one.name}{_cut(found)}"
            return
    if numbers:
        return
    larger = [other for other in gpus.load_all() if other.usable > gpu.usable]
    larger.sort(key=lambda other: (not other.listed, other.usable))  # those on Baseten's page first
    for one in (precision, *smaller):
        for other in larger:
            if found := _found(card, other, None, one, context):
                changed = f" PRECISION={one.name}" if one != precision else ""
                yield f"GPU={other.name}{changed}{_cut(found)}"
                return


def _cut(found: Plan) -> str:
    """The context that is left if none was asked for and the model's whole one does not fit."""
    return f" (context {found.context} of {whole})" if (whole := found.whole_context) else ""

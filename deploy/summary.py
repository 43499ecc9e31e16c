"""What a config.yaml holds, for the person who has it written.

Promises: says what was chosen by itself, and where the same model runs on fewer of the same GPUs.
"""

from deploy import fit, weights
from deploy.cards import Card
from deploy.config import planned
from deploy.fit import PlanError
from deploy.options import Options
from deploy.plan import Plan
from deploy.precisions import PRECISIONS

PRICES = "https://www.baseten.co/pricing"


def on_fewer_gpus(chosen: Plan) -> str:
    """The choice that runs the model in fp8 on fewer of these GPUs; empty where there is none."""
    if chosen.precision.quantized:
        return ""
    for count in (number for number in chosen.gpu.counts if number < chosen.count):
        try:
            found = fit.fit(chosen.card, chosen.gpu, count, PRECISIONS["fp8"])
        except PlanError:
            continue
        if found.longest_context < min(chosen.context, fit.WORTHWHILE_CONTEXT):
            continue
        least = f"GPU={found.accelerator} PRECISION=fp8"
        return f"{least} has {found.context} tokens of context, {found.concurrency_target} requests"
    return ""


def summary(card: Card, choices: Options) -> str:
    """What config.yaml holds, for its user."""
    card = weights.applied(card, choices)
    chosen = planned(card, choices)
    shorter = card.context.length - chosen.context if choices.context is None else 0
    less = f"; the model's {card.context.length} do not fit" if shorter else ""
    note = f"; {chosen.note}" if chosen.note else ""
    lines = [
        card.title,
        f"  accelerator  {chosen.accelerator}",
        f"  precision    {chosen.precision.name}, --dtype {chosen.dtype}{note}",
        f"  context      {chosen.context} tokens{less}",
        f"  requests     {chosen.max_num_seqs} batched; autoscaling {chosen.concurrency_target}",
        *weights.described(card, chosen, choices),
    ]
    if fewer := on_fewer_gpus(chosen):
        lines.append(f"  cheaper      {fewer}")
    lines.append(f"  prices       {PRICES}")
    if card.images:
        named = ", ".join(choices.hosts) or "data URLs alone"
        allowed = "any public address" if choices.image_hosts is None else named
        lines.append(f"  images from  {allowed}")
    return "\n".join(lines)

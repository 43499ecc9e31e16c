"""The summary of a config.yaml, printed after it is written.

Promises: names the automatic choices, a way to run the same model on fewer of the same GPUs, and
what the plan does not cover: a GPU that Baseten does not list, flags that change the KV cache.
"""

import re
from pathlib import Path

import yaml

from deploy import fit, vllm_args, weights
from deploy.cards import Card
from deploy.config import planned
from deploy.errors import UsageError
from deploy.fit import PlanError
from deploy.options import Options
from deploy.plan import USUAL_REQUEST, Plan
from deploy.precisions import PRECISIONS
from deploy.start_command import argument, serve_arguments, start_command

PRICES = "https://www.baseten.co/pricing"
INSTANCES = "https://docs.baseten.co/deployment/resources"
# vLLM flags that change the size of the KV cache, or how much of it a request takes.
OF_THE_KV_CACHE = (
    "--kv-cache-dtype",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--max-num-batched-tokens",
    "--speculative-config",
    "--cpu-offload-gb",
)

ADAPTER = re.compile(r"([^=]+)=(?:/tmp)?/adapters/")  # name=folder, of --lora-modules


def on_fewer_gpus(chosen: Plan) -> str:
    """The choice that runs the model in fp8 on fewer of these GPUs; empty if there is none."""
    if chosen.precision.quantized:
        return ""
    for count in (number for number in chosen.gpu.counts if number < chosen.count):
        try:
            found = fit.fit(chosen.card, chosen.gpu, count, PRECISIONS["fp8"], chosen.asked_context)
        except PlanError:
            continue
        if found.longest_context < min(chosen.context, fit.WORTHWHILE_CONTEXT):
            continue
        least = f"GPU={found.accelerator} PRECISION=fp8"
        cut = f", not {chosen.context}" if found.context < chosen.context else ""
        return (
            f"{least} has {found.context} tokens of context{cut}, "
            f"{found.concurrency_target} requests at a time"
        )
    return ""


def not_counted(chosen: Plan, choices: Options) -> str:
    """The flags that change the KV cache but not the plan; empty if there are none."""
    given = vllm_args.named((*chosen.card.flags, *choices.flags))
    return ", ".join(name for name in OF_THE_KV_CACHE if name in given)


def precision(chosen: Plan, choices: Options) -> str:
    """The precision of the weights and of the computation; and the reason, if the card chose the
    precision for a smaller GPU than the one given."""
    note = f" ({chosen.note})" if chosen.note else ""
    if chosen.precision.quantized:
        return f"{chosen.precision.name} weights{note}, {chosen.dtype} for the rest"
    said = f"{chosen.precision.name}, which vLLM calls {chosen.dtype}"
    usual, name = chosen.card.hardware, chosen.gpu.name
    if name != usual.accelerator and choices.precision is None and usual.precision == "float16":
        said += f": the card's, for its {usual.accelerator}"
        published = chosen.card.own_weights is None
        if published and chosen.gpu.capability >= PRECISIONS["bf16"].capability:
            said += "; PRECISION=bf16 is as published, and no larger"
    return said


def requests(chosen: Plan) -> str:
    images = " and an image" if chosen.card.images else ""
    return (
        f"{chosen.max_num_seqs} at most run at once in a replica; `make autoscale` gives it "
        f"{chosen.concurrency_target}, planned with {USUAL_REQUEST} tokens{images} each"
    )


def summary(card: Card, choices: Options) -> str:
    """The summary of a config.yaml, for its user."""
    card = weights.applied(card, choices)
    chosen = planned(card, choices)
    less = f"; the model's {whole} do not fit" if (whole := chosen.whole_context) else ""
    listed = "" if chosen.gpu.listed else f"; not on Baseten's page, ask for it: {INSTANCES}"
    lines = [
        card.title,
        f"  accelerator  {chosen.accelerator}{listed}",
        f"  precision    {precision(chosen, choices)}",
        f"  context      {chosen.context} tokens{less}",
        f"  requests     {requests(chosen)}",
        *weights.described(card, chosen, choices),
    ]
    if not card.features.tools:
        lines.append("  tools        none: the model's tokenizer has no tokens for them")
    if flags := not_counted(chosen, choices):
        lines.append(f"  not counted  {flags}: context and requests are planned without it")
    if choices.variables:
        lines.append(f"  environment  {', '.join(choices.variables)}")
    if fewer := on_fewer_gpus(chosen):
        lines.append(f"  fewer GPUs   {fewer}")
    lines.append(f"  prices       {PRICES}")
    if card.images:
        named = ", ".join(choices.hosts) or "data URLs alone"
        allowed = "any public address" if choices.image_hosts is None else named
        lines.append(f"  images from  {allowed}")
    return "\n".join(lines)


def in_a_line(path: Path) -> str:
    """What the config.yaml at `path` serves, in one line, including changes by hand; or that `make
    config` does not write such files. `UsageError` if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(
            f"{path.name} cannot be read ({error.strerror}); make config MODEL=… writes it"
        ) from error
    try:
        config, command = yaml.safe_load(text), start_command(text)
        served = serve_arguments(command)
        variables = config.get("environment_variables") or {}
        sources = [str(entry["source"]) for entry in config.get("weights") or []]
        said = {
            "": f"{config['model_name']} on {config['resources']['accelerator']}",
            "weights ": [*sources, *served][0],
            "adapters ": " ".join(found[1] for word in served if (found := ADAPTER.match(word))),
            "dtype ": argument(command, "--dtype"),
            "quantization ": argument(command, "--quantization"),
            "as ": variables.get("VLLM_HUMMING_ONLINE_QUANT_CONFIG"),
            "context ": argument(command, "--max-model-len"),
        }
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError):
        return f"{path.name}, which is not as `make config` writes it"
    return ", ".join(f"{name}{value}" for name, value in said.items() if value)

"""Compares a running deployment with its plan: templates/ and config.yaml.

Promises: pure comparison of a config.yaml and its plan with what the server reports in /metrics and
/v1/models; says which figure of templates/ is off and by how much; a figure that cannot be
compared, as on a CPU, gets a reason instead of a pass.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy import memory
from deploy.markdown import row, table
from deploy.memory import GIB
from deploy.plan import GRAPHS, LIBRARIES, NCCL, ROOM, Plan
from deploy.start_command import argument, serve_arguments, start_command

OURS, CACHE = "predict:config_info", "vllm:cache_config_info"
CLOSE = 0.05  # of a calculated figure: a smaller difference is not reported


@dataclass(frozen=True)
class Comparison:
    """`agrees` is None if there is nothing to compare, for the reason in `note`."""

    name: str
    planned: str
    seen: str
    agrees: bool | None
    note: str = ""


@dataclass(frozen=True)
class Seen:
    """What a server reports; `ours` is empty for a deployment without this project."""

    ours: Mapping[str, str]
    cache: Mapping[str, str]
    models: list[dict[str, Any]]  # of /v1/models

    @property
    def on_cpu(self) -> bool:
        return self.ours.get("device") == "cpu"

    @property
    def kv_tokens(self) -> int | None:
        try:
            return int(self.cache["num_gpu_blocks"]) * int(self.cache["block_size"])
        except (KeyError, ValueError):
            return None


def labels(metrics: str, name: str) -> dict[str, str]:
    """The labels of the metric `name` in Prometheus' text format; empty if it is missing."""
    for line in metrics.splitlines():
        if line.startswith(f"{name}{{"):
            return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))
    return {}


def seen(metrics: str, models: list[dict[str, Any]]) -> Seen:
    return Seen(labels(metrics, OURS), labels(metrics, CACHE), models)


def adapters_of(words: Iterable[str]) -> list[str]:
    """The adapter names in `--lora-modules` of a start command, in either form."""
    found, inside = [], False
    for word in words:
        if word.startswith("--"):
            inside = word.replace("_", "-") == "--lora-modules"
        elif inside:
            named = re.search(r'"name": *"([^"]+)"', word)
            found.append(named[1] if named else word.partition("=")[0])
    return found


def compare(config: str, plan: Plan, version: str, runs: Seen) -> list[Comparison]:
    """`config` is the text of config.yaml, `plan` what it was made from, `version` vLLM's."""
    command = start_command(config)
    ours = runs.ours
    base = [model for model in runs.models if not model.get("parent")]
    tuned = sorted(str(model["id"]) for model in runs.models if model.get("parent"))
    longest = str(base[0].get("max_model_len") or "") if base else ""
    tools = argument(command, "--tool-call-parser") or "none"
    asked = sorted(adapters_of(serve_arguments(command)))
    rows = [
        _same("vLLM", version, ours.get("version", "").partition("+")[0]),
        _hardware(plan, runs),
        _precision(command, plan, runs),
        _same("context, tokens", argument(command, "--max-model-len") or "", longest),
        _same(
            "batched requests",
            argument(command, "--max-num-seqs") or "",
            ours.get("max_num_seqs", ""),
        ),
        _same("tools", tools, ours.get("tools", "")),
        _same("adapters", ", ".join(asked) or "none", ", ".join(tuned) or "none"),
        _kv_cache(command, plan, runs),
    ]
    return rows


def _same(name: str, planned: str, found: str) -> Comparison:
    if not found:
        why = "the server does not say; it was deployed before this was added"
        return Comparison(name, planned, "", None, why)
    return Comparison(name, planned, found, planned == found)


def _hardware(plan: Plan, runs: Seen) -> Comparison:
    planned, device = plan.accelerator, runs.ours.get("device", "")
    if not device:
        return _same("hardware", planned, "")
    if runs.on_cpu:
        return Comparison("hardware", planned, "cpu", None, "a run on a CPU, with a stand-in")
    gpus = runs.ours.get("gpus", "")
    name = plan.gpu.name.removesuffix("_40GB").replace("_", " ").removesuffix("G")
    right = re.search(rf"\b{re.escape(name)}(?![0-9]|S\b)", device) and gpus == str(plan.count)
    driver = runs.ours.get("driver")
    said = f"{device} × {gpus}" + (f", driver {driver}" if driver else "")
    return Comparison("hardware", planned, said, bool(right))


def _precision(command: str, plan: Plan, runs: Seen) -> Comparison:
    name, kind = "precision", plan.precision
    asked, planned_dtype = argument(command, "--quantization"), argument(command, "--dtype")
    already = kind.quantized and asked is None  # vLLM reads it from the checkpoint
    how = "quantized" if already else asked or "not quantized"
    planned = f"{kind.name}: {planned_dtype}, {how}"
    dtype, found = runs.ours.get("dtype", ""), runs.ours.get("quantization", "")
    if not dtype:
        return _same(name, planned, "")
    said = f"{dtype}, {found if found != 'none' else 'not quantized'}"
    if already:
        right, note = found != "none", ""
    else:
        # vLLM reports its own quantization by the flag's value, or as "online"
        right = found in (asked or "none", "online" if asked else "none")
        given = plan.card.own_weights and not asked and not right
        note = "the weights are quantized, and QUANTIZED= tells the plan how" if given else ""
    return Comparison(name, planned, said, right and dtype == planned_dtype, note)


def _kv_cache(command: str, plan: Plan, runs: Seen) -> Comparison:
    name, planned, found = "KV cache, tokens", f"{plan.kv_tokens}", runs.kv_tokens
    if found is None:
        return Comparison(name, planned, "", None, "the server's /metrics do not say")
    if runs.on_cpu:
        why = "on a CPU it has the size that local/environment.yaml gives it"
        return Comparison(name, planned, str(found), None, why)
    if kind := argument(command, "--kv-cache-dtype"):
        why = f"--kv-cache-dtype {kind} changes it, and the plan does not count that"
        return Comparison(name, planned, str(found), None, why)
    share = found / plan.kv_tokens - 1
    if abs(share) <= CLOSE:
        return Comparison(name, planned, str(found), True, f"{share:+.1%}")
    per_gpu = (found - plan.kv_tokens) * memory.kv_bytes_per_token(plan.card.architecture)
    gib = per_gpu / plan.count / GIB
    if gib > plan.gpu.usable:
        why = "more than a GPU holds of this model: the server has other weights, a stand-in's?"
        return Comparison(name, planned, str(found), False, why)
    usable = plan.gpu.usable + gib / plan.utilization
    beside = (LIBRARIES + GRAPHS + (NCCL if plan.count > 1 else 0)) / GIB
    note = (
        f"{share:+.1%}, {gib:+.2f} GiB a GPU. Either templates/gpus.yaml is off: {plan.gpu.name}: "
        f"usable: {plan.gpu.usable:g} would have to be {usable:.2f}; or deploy/plan.py is, whose "
        f"estimate beside weights and activations, {beside:.2f} GiB, would have to be "
        f"{beside - gib:.2f}"
    )
    # a planned context fits into ROOM of the cache: in a smaller cache fewer requests fit
    return Comparison(name, planned, str(found), share >= ROOM - 1, note)


def as_markdown(compared: Iterable[Comparison]) -> str:
    verdict = {True: "agrees", False: "**differs**", None: "not compared"}
    rows = [row(it.name, it.planned, it.seen, verdict[it.agrees], it.note) for it in compared]
    return table(["", "planned", "runs", "", ""], rows)

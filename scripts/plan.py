"""Shows what fits where: every model on every GPU at every precision, and why the rest do not.

Promises: the figures are deploy/plan.py's; exit code 2 and one line per reason if nothing requested
can run. With --json, standard output is a list of combinations, all with the same keys; it is empty
if an argument is invalid (exit code 2, the message on standard error).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy import cards, gpus, memory, precisions
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.fit import PlanError, choose, fit
from deploy.gpus import Gpu
from deploy.memory import GIB, in_gib
from deploy.options import Options, context_of, number_of
from deploy.plan import Plan
from deploy.precisions import CHECKPOINTS, PRECISIONS, Precision
from deploy.sections import Quantized
from deploy.weights import applied
from scripts.command import command


@dataclass(frozen=True)
class Row:
    """A combination, and the reason if it cannot run."""

    tried: Plan
    refusal: PlanError | None = None


def rows(
    models: Iterable[Card],
    gpu: tuple[Gpu, int | None] | None,
    precision: Precision | None,
    context: int | None,
) -> Iterator[Row]:
    """Every combination of the given values and all values of the rest. Leaves out AWQ and GPTQ if
    the card names no such repo, unless they are given."""
    for card in models:
        named = [repo.precision for repo in card.quantized]
        own = card.own_weights.quantized if card.own_weights else None
        if own and precision:
            raise UsageError(f"PRECISION={precision.name}: the weights are {own} already")
        for one, count in [gpu] if gpu else [(one, None) for one in gpus.load_all()]:
            usual = [each for each in PRECISIONS.values() if not each.repo or each.name in named]
            usual = [CHECKPOINTS[own]] if own else usual
            for each in [precision] if precision else usual:
                try:
                    yield Row(fit(card, one, count, each, context))
                except PlanError as refusal:
                    yield Row(refusal.tried, refusal)


def as_json(row: Row) -> dict[str, object]:
    """Sizes in GiB, of all GPUs together unless the name says otherwise. The keys are always the
    same; if it cannot run, those that describe what would be served are null."""
    tried, refusal = row.tried, row.refusal
    shape = tried.card.architecture
    sized = not tried.precision.repo or isinstance(tried.checkpoint, Quantized)
    served = {
        "kv_cache_gib": round(tried.kv_memory * tried.count / GIB, 2),
        "kv_cache_tokens": tried.kv_tokens,
        "longest_context": tried.longest_context,
        "max_model_len": tried.context,
        "full_context_requests": tried.full_context_requests,
        "requests_2k": tried.requests_2k,
        "max_num_seqs": tried.max_num_seqs,
        "concurrency_target": tried.concurrency_target,
        "dtype": tried.dtype,
        "quantization": tried.precision.quantization,
    }
    return {
        "model": tried.card.name,
        "gpu": tried.gpu.name,
        "count": tried.count,
        "precision": tried.precision.name,
        "fits": refusal is None,
        "verdict": str(refusal) if refusal else tried.verdict,
        "reason": refusal.reason if refusal else None,
        "advice": refusal.advice if refusal else None,
        "parameters": memory.parameters(shape).total,
        "kv_bytes_per_token": memory.kv_bytes_per_token(shape),
        "accelerator": tried.accelerator,
        "tensor_parallel_size": tried.count,
        "listed": tried.gpu.listed,
        "memory_gib": tried.count * tried.gpu.memory,
        "usable_gib": round(tried.count * tried.gpu.usable, 2),
        "gpu_memory_utilization": tried.utilization,
        "weights_gib": round(tried.weights / GIB, 2) if sized else None,
        "beside_gib_estimate": round(tried.beside * tried.count / GIB, 2),
        **(dict.fromkeys(served) if refusal else served),
    }


def _show(found: list[Row], console: Console, counted: bool) -> None:
    """`counted`: the number of GPUs was given, so no other is shown."""
    for card in {row.tried.card.name: row.tried.card for row in found}.values():
        mine = [row for row in found if row.tried.card.name == card.name]
        parameters = memory.parameters(card.architecture).total
        per_token = memory.kv_bytes_per_token(card.architecture) // 1024
        usual = _usual(card, mine[0].tried.asked_context)
        about = f": {parameters / 1e9:.2f} B parameters, {card.context.length} tokens of context"
        about += f", {per_token} KiB of KV cache a token"
        about += f", by default on {usual.where} {usual.precision.name}" if usual else ""
        console.print(Text.assemble((card.title, "bold"), about))
        if plans := [row.tried for row in mine if row.refusal is None]:
            plans = plans if counted or not usual else _with_default(plans, usual)
            console.print(_table(plans, usual, memory=console.width >= WIDE))
        for where, reason in _refusals(mine):
            console.print(Text(f"  {where}: {reason}", style="bright_black"))
        console.print()


def _table(plans: Iterable[Plan], usual: Plan | None, memory: bool) -> Table:
    """The plans that run, the `usual` one marked; with the use of memory if there is space."""
    shown = Table(box=None, padding=(0, 1), header_style="underline")
    shown.add_column("GPUs", no_wrap=True)
    shown.add_column("precision", no_wrap=True)
    for name in (*(("weights", "beside", "KV cache") if memory else ()), "context", "full", "2k"):
        shown.add_column(name, justify="right", no_wrap=True)
    for one in plans:
        same = usual and (one.where, one.precision) == (usual.where, usual.precision)
        mark = (DEFAULT if same else "") + ("" if one.gpu.listed else UNLISTED)
        parts = (one.weights, one.beside * one.count, one.kv_memory * one.count)
        shown.add_row(
            f"{one.where}{mark}",
            one.precision.name,
            *(in_gib(part) for part in (parts if memory else ())),
            str(one.context),
            str(one.full_context_requests),
            str(one.requests_2k),
        )
    return shown


def _with_default(plans: list[Plan], usual: Plan) -> list[Plan]:
    """`plans`, plus the `usual` one if its number of GPUs is not the smallest."""
    kind = (usual.gpu, usual.precision)
    at = next((n for n, one in enumerate(plans) if (one.gpu, one.precision) == kind), None)
    if at is None or plans[at].count == usual.count:
        return plans
    at += int(usual.count > plans[at].count)
    return [*plans[:at], usual, *plans[at:]]


def _usual(card: Card, context: int | None) -> Plan | None:
    """The default of `make config` without hardware options; None if that does not fit."""
    try:
        return choose(card, context=context)
    except PlanError:
        return None


def _refusals(found: list[Row]) -> Iterator[tuple[str, str]]:
    """Combinations that cannot run, and each reason once: "T4 bf16", or "on any GPU"."""
    merged: dict[str, dict[str, list[str]]] = {}
    for row in found:
        if row.refusal:
            on = merged.setdefault(row.refusal.reason, {})
            on.setdefault(row.tried.gpu.name, []).append(row.tried.precision.name)
    everywhere = {row.tried.gpu.name for row in found}
    for reason, on in merged.items():
        names = dict.fromkeys(name for each in on.values() for name in each)
        several = len(on) > 1
        where = "on any GPU" if several and set(on) == everywhere else ", ".join(on)
        yield f"{where}{',' if several else ''} {', '.join(names)}", reason


def _reasons(found: Iterable[Row]) -> list[PlanError]:
    """Each reason once, with the advice that changes least."""
    by_reason: dict[str, PlanError] = {}
    for refusal in (row.refusal for row in found if row.refusal):
        known = by_reason.get(refusal.reason, refusal)
        shorter = len(refusal.advice) < len(known.advice)
        by_reason[refusal.reason] = refusal if shorter else known
    return list(by_reason.values())


WIDE = 76  # columns: a terminal of this width has space for all figures

DEFAULT, UNLISTED = "*", "†"
NOT_LISTED = f"{UNLISTED}: not on Baseten's page of instances; ask Baseten whether it is to be had."
LEGEND = (
    f"{DEFAULT}: the card's default. {NOT_LISTED} GiB on all GPUs together; beside: an estimate of "
    "what vLLM needs for activations, CUDA graphs and libraries. context: the longest that fits; "
    "full and 2k: how many requests of that length, and of 2048 tokens of text, fit at once. "
    "docs/hardware.md has the arithmetic."
)


@command("plan")
def main(options: argparse.Namespace) -> int:
    models = [cards.load(options.model)] if options.model else cards.load_all()
    own = Options(
        weights=options.weights,
        quantized=options.quantized,
        adapters=options.adapters,
        rank=number_of("RANK", options.rank),
    )
    if own != Options():
        if not options.model:
            raise UsageError("own weights and adapters are of one model; say which with MODEL=")
        models = [applied(card, own) for card in models]
    gpu = gpus.parse(options.gpu) if options.gpu else None
    precision = precisions.parse(options.precision) if options.precision else None
    found = list(rows(models, gpu, precision, context_of(options.context)))
    runs = [row.tried for row in found if row.refusal is None]
    if options.json:
        print(json.dumps([as_json(row) for row in found], indent=2))
    elif runs:
        console = Console()
        with console.capture() as shown:  # rich exits the process if the reader closes the pipe
            if len(found) > 1:
                console.print(Text(f"{LEGEND}\n", style="italic"))
            _show(found, console, counted=bool(gpu and gpu[1]))
            if len(found) == 1:
                more = "" if runs[0].gpu.listed else f"\n{NOT_LISTED}"
                console.print(Text(f"{runs[0].verdict}{more}", style="italic"))
        print(shown.get(), end="", flush=True)
    if runs:
        return 0
    for refusal in _reasons(found):
        print(f"make plan: {refusal}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

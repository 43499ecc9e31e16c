"""Writes the tables of the pages that are made from data: cards, GPUs, plans, and what
packages/predict reads requests by.

Promises: only what stands between a pair of markers is replaced. Refuses a page without them.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from predict.legacy.parameters import HARMLESS, MAPPED, REFUSED, REFUSED_PARTS, REMOVED, UNSUPPORTED

from deploy import cards, fit, gpus, memory
from deploy.cards import Card
from deploy.errors import CommandError
from deploy.limits import LIMITS
from deploy.memory import in_gib
from deploy.paths import ROOT
from deploy.plan import Plan
from deploy.precisions import PRECISIONS
from scripts.command import command


def defaults_table() -> str:
    lines = [
        "| model | new tokens | at most | temperature | top_p | top_k | in the OpenAI format |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for card in cards.load_all():
        given = card.sampling
        values = [given.max_tokens, given.max_tokens_limit, given.temperature]
        values += [given.top_p, given.top_k]
        shown = " | ".join("" if value is None else str(value) for value in values)
        too = "yes" if given.openai_requests else "no"
        lines.append(f"| {card.title} | {shown} | {too} |")
    return "\n".join(lines)


def mapped_table() -> str:
    lines = ["| argument | takes | becomes in vLLM | what to know |", "| --- | --- | --- | --- |"]
    for name, row in MAPPED.items():
        fields = ", ".join(f"`{field}`" for field in row.fields)
        notes = [row.note] if row.note else []
        notes += [] if row.beams else ["not with `num_beams` above 1"]
        lines.append(f"| `{name}` | {row.takes} | {fields} | {'; '.join(notes)} |")
    return "\n".join(lines)


def unavailable_table() -> str:
    lines = ["| argument | instead | accepted, for it asks for nothing |", "| --- | --- | --- |"]
    for name, row in UNSUPPORTED.items():
        neutral = ", ".join(f"`{str(value).lower()}`" for value in row.neutral)
        lines.append(f"| `{name}` | {row.instead} | {neutral} |")
    return "\n".join(lines)


def harmless_table() -> str:
    lines = ["| arguments | why they have no effect |", "| --- | --- |"]
    for why, names in HARMLESS.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {why} |")
    return "\n".join(lines)


def removed_table() -> str:
    lines = ["| name | instead |", "| --- | --- |"]
    lines += [f"| `{name}` | {instead} |" for name, instead in REMOVED.items()]
    return "\n".join(lines)


def limits_table() -> str:
    every = cards.load_all()
    lines = [
        f"| limit | {' | '.join(card.title for card in every)} | counts |",
        f"| --- | {'--- | ' * len(every)}--- |",
    ]
    for name, row in LIMITS.items():
        most = [card.request_limits[name] for card in every]
        shown = " | ".join("none" if value is None else f"{value:,}" for value in most)
        lines.append(f"| `{name}` | {shown} | {row['description']} |")
    return "\n".join(lines)


def refused_table() -> str:
    lines = ["| field | why |", "| --- | --- |"]
    lines += [f"| `{name}` | {why} |" for name, why in REFUSED.items()]
    lines += [f"| a content part `{name}` | {why} |" for name, why in REFUSED_PARTS.items()]
    return "\n".join(lines)


def smallest_in_fp8(card: Card, context: int) -> Plan | None:
    """The least memory of GPUs on Baseten's page that holds so much context; None where nothing
    does."""
    found = list[Plan]()
    for gpu in gpus.load_all():
        if gpu.listed:
            with contextlib.suppress(fit.PlanError):
                found.append(fit.fit(card, gpu, None, PRECISIONS["fp8"], context))
    return min(found, key=lambda plan: (plan.count * plan.gpu.usable, plan.count), default=None)


def hardware_table() -> str:
    lines = [
        "| model, with its terms | default | precision | context "
        "| smallest GPUs for that context in fp8 | names it answers to, beside its repo |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for card in cards.load_all():
        chosen = fit.choose(card)
        names = ", ".join(f"`{name}`" for name in card.names if name != card.weights.repo)
        hardware = f"{chosen.count} × {chosen.gpu.name} | {chosen.precision.name}"
        smallest = smallest_in_fp8(card, chosen.context)
        less = f"{smallest.count} × {smallest.gpu.name}" if smallest else ""
        model = f"[{card.title}](https://huggingface.co/{card.weights.repo})"
        lines.append(f"| {model} | {hardware} | {chosen.context} | {less} | {names} |")
    return "\n".join(lines)


def gpus_table() -> str:
    lines = [
        "| GPU | label, GiB | seen by CUDA | compute capability | how many | on Baseten's page |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for gpu in gpus.load_all():
        counts = ", ".join(str(count) for count in gpu.counts)
        listed = "yes" if gpu.listed else "no"
        seen = f"[{gpu.usable}]({gpu.source})"
        lines.append(
            f"| {gpu.name} | {gpu.memory} | {seen} | {gpu.capability} | {counts} | {listed} |"
        )
    return "\n".join(lines)


def memory_table() -> str:
    lines = [
        "| | " + " | ".join(card.title for card in cards.load_all()) + " |",
        "| --- |" + " ---: |" * len(cards.load_all()),
    ]
    for name, figure in MEMORY_ROWS.items():
        figures = " | ".join(figure(fit.choose(card)) for card in cards.load_all())
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


MEMORY_ROWS: dict[str, Callable[[Plan], str]] = {
    "GPUs, precision": lambda it: f"{it.count} × {it.gpu.name}, {it.precision.name}",
    "parameters": lambda it: f"{memory.parameters(it.card.architecture).total:,}",
    "weights on each GPU, GiB": lambda it: in_gib(it.weights / it.count),
    "seen by CUDA, GiB": lambda it: str(it.gpu.usable),
    "`--gpu-memory-utilization`": lambda it: str(it.utilization),
    "vLLM's share of it, GiB": lambda it: in_gib(it.budget),
    "beside the weights, GiB, estimate": lambda it: in_gib(it.beside),
    "left for the KV cache, GiB": lambda it: in_gib(it.kv_memory),
    "KV cache of a token on all GPUs, KiB": lambda it: str(
        memory.kv_bytes_per_token(it.card.architecture) // 1024
    ),
    "tokens that fit": lambda it: f"{it.kv_tokens:,}",
    "`--max-model-len`": lambda it: str(it.context),
    "requests of that length at once": lambda it: str(it.full_context_requests),
    "requests of 2048 tokens at once": lambda it: str(it.requests_2k),
    "`--max-num-seqs`": lambda it: str(it.max_num_seqs),
    "`concurrency_target`": lambda it: str(it.concurrency_target),
}

PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": {"hardware": hardware_table},
    ROOT / "docs" / "hardware.md": {"gpus": gpus_table, "memory": memory_table},
    ROOT / "docs" / "requests.md": {
        "defaults": defaults_table,
        "mapped": mapped_table,
        "unavailable": unavailable_table,
        "harmless": harmless_table,
        "removed": removed_table,
        "limits": limits_table,
        "refused": refused_table,
    },
}


def updated(page: Path) -> str:
    """The text of the page with its tables made again."""
    text = page.read_text(encoding="utf-8")
    for name, table in PAGES[page].items():
        begin, end = f"<!-- {name}: made by make docs -->", f"<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise CommandError(f"{page.name} has no part between {begin!r} and {end!r}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


@command("docs")
def main(options: argparse.Namespace) -> None:
    for page in PAGES:
        page.write_text(updated(page), encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())

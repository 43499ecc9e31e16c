"""Writes the tables in the docs that are generated from data: cards, GPUs, plans, and the data by
which packages/predict reads requests.

Promises: replaces only the text between a pair of markers. Refuses a page without them.
"""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from predict.legacy.parameters import HARMLESS, MAPPED, REFUSED, REFUSED_PARTS, REMOVED, UNSUPPORTED

from deploy import cards, fit, gpus, memory
from deploy.cards import Card
from deploy.errors import CommandError
from deploy.limits import LIMITS
from deploy.markdown import row, table
from deploy.memory import in_gib
from deploy.paths import ROOT
from deploy.plan import Plan
from deploy.precisions import PRECISIONS
from scripts.command import command


def defaults_table() -> str:
    titles = ["model", "new tokens", "at most", "temperature", "top_p", "top_k"]
    rows = []
    for card in cards.load_all():
        given = card.sampling
        values = [given.max_tokens, given.max_tokens_limit, given.temperature]
        values += [given.top_p, given.top_k]
        shown = ["" if value is None else value for value in values]
        rows.append(row(card.title, *shown, "yes" if given.openai_requests else "no"))
    return table([*titles, "in the OpenAI format"], rows)


def mapped_table() -> str:
    rows = []
    for name, argument in MAPPED.items():
        notes = [argument.note] if argument.note else []
        notes += [] if argument.beams else ["not with `num_beams` above 1"]
        rows.append(row(f"`{name}`", argument.takes, code(argument.fields), "; ".join(notes)))
    return table(["argument", "takes", "becomes in vLLM", "what to know"], rows)


def unavailable_table() -> str:
    rows = [
        row(f"`{name}`", it.instead, code(str(value).lower() for value in it.neutral))
        for name, it in UNSUPPORTED.items()
    ]
    return table(["argument", "instead", "accepted, for it asks for nothing"], rows)


def harmless_table() -> str:
    rows = [row(code(names), why) for why, names in HARMLESS.items()]
    return table(["arguments", "why they have no effect"], rows)


def removed_table() -> str:
    return table(["name", "instead"], [row(f"`{name}`", it) for name, it in REMOVED.items()])


def limits_table() -> str:
    """The limits most models have, and those of the models that differ."""
    rows = []
    for name, limit in LIMITS.items():
        each = {card.title: shown(card.request_limits[name]) for card in cards.load_all()}
        ((usual, _),) = Counter(each.values()).most_common(1)
        others = [f"{title}: {most}" for title, most in each.items() if most != usual]
        rows.append(row(f"`{name}`", "; ".join([usual, *others]), limit["description"]))
    return table(["limit", "at most", "counts"], rows)


def shown(most: int | None) -> str:
    return "none" if most is None else f"{most:,}"


def refused_table() -> str:
    rows = [row(f"`{name}`", why) for name, why in REFUSED.items()]
    rows += [row(f"a content part `{name}`", why) for name, why in REFUSED_PARTS.items()]
    return table(["field", "why"], rows)


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def smallest_in_fp8(card: Card, context: int) -> Plan | None:
    """The least memory of GPUs on Baseten's page that holds this much context; None if nothing
    does."""
    found = list[Plan]()
    for gpu in gpus.load_all():
        if gpu.listed:
            with contextlib.suppress(fit.PlanError):
                found.append(fit.fit(card, gpu, None, PRECISIONS["fp8"], context))
    return min(found, key=lambda plan: (plan.count * plan.gpu.usable, plan.count), default=None)


def hardware_table() -> str:
    titles = ["model, with its terms", "default", "precision", "context"]
    titles += ["smallest GPUs for that context in fp8", "names it answers to, beside its repo"]
    rows = []
    for card in cards.load_all():
        chosen = fit.choose(card)
        smallest = smallest_in_fp8(card, chosen.context)
        rows.append(
            row(
                f"[{card.title}](https://huggingface.co/{card.weights.repo})",
                f"{chosen.count} × {chosen.gpu.name}",
                chosen.precision.name,
                chosen.context,
                f"{smallest.count} × {smallest.gpu.name}" if smallest else "",
                code(name for name in card.names if name != card.weights.repo),
            )
        )
    return table(titles, rows)


def gpus_table() -> str:
    titles = ["GPU", "label, GiB", "seen by CUDA", "compute capability", "how many"]
    rows = []
    for gpu in gpus.load_all():
        seen = f"[{gpu.usable}]({gpu.source})"
        counts = ", ".join(map(str, gpu.counts))
        listed = "yes" if gpu.listed else "no"
        rows.append(row(gpu.name, gpu.memory, seen, gpu.capability, counts, listed))
    return table([*titles, "on Baseten's page"], rows)


def memory_table() -> str:
    plans = [fit.choose(card) for card in cards.load_all()]
    rows = [row(name, *map(figure, plans)) for name, figure in MEMORY_ROWS.items()]
    return table(["", *(plan.card.title for plan in plans)], rows)


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
    """The text of the page with its tables regenerated."""
    text = page.read_text(encoding="utf-8")
    for name, made in PAGES[page].items():
        begin, end = f"<!-- {name}: made by make docs -->", f"<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise CommandError(f"{page.name} has no part between {begin!r} and {end!r}")
        text = f"{before}{begin}\n{made()}\n{end}{after}"
    return text


@command("docs")
def main(options: argparse.Namespace) -> None:
    for page in PAGES:
        page.write_text(updated(page), encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())

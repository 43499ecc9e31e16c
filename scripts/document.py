"""Writes the tables of docs/requests.md that are made from data: parameters.yaml and the cards.

Promises: only what stands between a pair of markers is replaced. Refuses a page without them.
"""

import argparse
import sys
from pathlib import Path

from predict.parameters import HARMLESS, MAPPED, REMOVED, UNAVAILABLE

from scripts import cards
from scripts.cards import ROOT

PAGE = ROOT / "docs" / "requests.md"


def defaults_table() -> str:
    lines = [
        "| model | new tokens | at most | temperature | top_p | top_k | for OpenAI's shape too |",
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
    for name, row in UNAVAILABLE.items():
        neutral = ", ".join(f"`{str(value).lower()}`" for value in row.neutral)
        lines.append(f"| `{name}` | {row.instead} | {neutral} |")
    return "\n".join(lines)


def harmless_table() -> str:
    names: dict[str, list[str]] = {}
    for name, why in HARMLESS.items():
        names.setdefault(why, []).append(f"`{name}`")
    lines = ["| arguments | why they have no effect |", "| --- | --- |"]
    lines += [f"| {', '.join(found)} | {why} |" for why, found in names.items()]
    return "\n".join(lines)


def removed_table() -> str:
    lines = ["| name | instead |", "| --- | --- |"]
    lines += [f"| `{name}` | {instead} |" for name, instead in REMOVED.items()]
    return "\n".join(lines)


def updated(page: str) -> str:
    """The page with its tables made anew."""
    tables = {
        "defaults": defaults_table(),
        "mapped": mapped_table(),
        "unavailable": unavailable_table(),
        "harmless": harmless_table(),
        "removed": removed_table(),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by make docs -->", f"<!-- end of {name} -->"
        before, opened, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise ValueError(f"{PAGE.name} has no part between {begin!r} and {end!r}")
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make docs", description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=PAGE)
    page = parser.parse_args(arguments).page
    try:
        page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

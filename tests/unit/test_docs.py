"""The pages: their tables are what the data says, their commands are understood."""

import re
import shlex
from pathlib import Path

import pytest

from deploy import cards, fit
from deploy.config import render
from deploy.errors import CommandError
from deploy.options import from_arguments
from deploy.paths import ROOT
from deploy.precisions import PRECISIONS
from scripts import docs, plan
from scripts.command import parse

WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_THE_READER = {"<commit>": "c" * 40, "$MODEL_ID": "abc12345", "the-new-card": "mistral-7b"}


def commands(page: Path) -> list[str]:
    """The lines that begin with make, of the page's blocks for a shell."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    for theirs, example in OF_THE_READER.items():
        blocks = blocks.replace(theirs, example)
    return re.findall(r"(?:^|&& )(make .*?)(?: &&.*)?$", blocks, re.MULTILINE)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_make_understands_the_commands_of_the_page(page: Path) -> None:
    for line in commands(page):
        _, name, *words = shlex.split(line, comments=True)
        options = parse(name, words)
        if "weights" in options and "source" in options:  # what config.yaml is made from
            render(cards.load(options.model or cards.DEFAULT_MODEL), from_arguments(options))


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_the_committed_tables_are_what_the_data_says(page: Path) -> None:
    assert docs.updated(page) == page.read_text(encoding="utf-8"), "run: make docs"


def test_the_smallest_hardware_holds_the_context() -> None:
    mistral = cards.load("mistral-7b")
    found = docs.smallest_in_fp8(mistral, 32768)
    assert found is not None
    assert (found.accelerator, found.context) == ("T4:1", 32768)
    larger = docs.smallest_in_fp8(cards.load("mixtral-8x7b"), 32768)
    assert larger is not None
    assert larger.accelerator == "H100:1"
    assert docs.smallest_in_fp8(mistral, 10**6) is None


@pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
def test_the_smallest_hardware_is_what_make_plan_says(card: cards.Card) -> None:
    context = fit.choose(card).context
    fits = [
        row.tried
        for row in plan.rows([card], None, PRECISIONS["fp8"], context)
        if row.refusal is None and row.tried.gpu.listed
    ]
    found = docs.smallest_in_fp8(card, context)
    assert found is not None
    assert found in fits
    least = found.count * found.gpu.usable
    assert least == min(one.count * one.gpu.usable for one in fits)
    named = f"| {context} | {found.count} × {found.gpu.name} |"
    (row,) = [line for line in docs.hardware_table().splitlines() if f"[{card.title}]" in line]
    assert named in row


def test_a_page_without_the_markers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Requests\n")
    monkeypatch.setitem(docs.PAGES, page, {"defaults": docs.defaults_table})
    with pytest.raises(CommandError, match=r"page\.md has no part between"):
        docs.updated(page)

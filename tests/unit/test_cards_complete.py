"""What a new card needs beside itself, by name; `make check` runs this.

That it renders and that vLLM takes its flags is tests/platform/test_config.py's.
"""

import pytest

from deploy import cards, memory
from deploy.cards import Card
from deploy.paths import ROOT
from deploy.sections import LONGEST_STARTUP
from local.standins import cache
from scripts import docs

# Bytes a second that a cold mirror must give, at least. The cards reckon with half of it; the
# largest cannot, for Baseten's longest start.
MIRROR = 100 * 2**20
every_card = pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
# the tables that have something of every card
TABLES = {
    page: [table for name, table in tables.items() if name in ("hardware", "reckoning", "defaults")]
    for page, tables in docs.PAGES.items()
}


@every_card
def test_the_tables_of_the_docs_have_the_card(card: Card) -> None:
    without = [
        str(page.relative_to(ROOT))
        for page, tables in TABLES.items()
        if tables and card.title not in page.read_text(encoding="utf-8")
    ]
    assert not without, f"{card.name}: not in the tables of {', '.join(without)}; run: make docs"


@every_card
def test_a_start_has_the_seconds_that_its_weights_take(card: Card) -> None:
    seconds = memory.weight_bytes(card.architecture, 16) / MIRROR
    given = card.hardware.startup_seconds
    assert given >= min(seconds, LONGEST_STARTUP), (
        f"{card.name}.yaml: hardware.startup_seconds is {given}; its weights alone take "
        f"{seconds:.0f} s at 100 MiB/s"
    )


@every_card
def test_a_stand_in_can_be_made_with_the_model_s_tokenizer(card: Card) -> None:
    assert cache.tokenizer_path(card).is_file()

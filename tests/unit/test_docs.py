from pathlib import Path

import pytest

from deploy.errors import CommandError
from scripts import docs


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_the_committed_tables_are_what_the_data_says(page: Path) -> None:
    assert docs.updated(page) == page.read_text(encoding="utf-8"), "run: make docs"


def test_a_page_without_the_markers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Requests\n")
    monkeypatch.setitem(docs.PAGES, page, {"defaults": docs.defaults_table})
    with pytest.raises(CommandError, match=r"page\.md has no part between"):
        docs.updated(page)

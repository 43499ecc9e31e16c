import pytest

from scripts import document


def test_the_committed_tables_are_what_the_data_says() -> None:
    page = document.PAGE.read_text(encoding="utf-8")
    assert document.updated(page) == page, "run: make docs"


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="has no part between"):
        document.updated("# Requests\n")

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deploy.paths import ROOT
from tests.support.resilience import BY_HAND, END, Report


def test_what_failed_is_named_in_place_of_its_row() -> None:
    crash = SimpleNamespace(message="assert 4 < 3\n  where 4 is …")
    failed: Any = SimpleNamespace(
        failed=True, nodeid="a/test_b.py::test_c", longrepr=SimpleNamespace(reprcrash=crash)
    )
    report = Report()
    report.row("Load", "500 streams", "all exact")
    report.pytest_runtest_logreport(failed)
    text = report.page()
    assert "| 500 streams | all exact |" in text
    assert "- `test_b.py::test_c`: `assert 4 < 3`\n" in text


def test_what_is_written_by_hand_is_kept(tmp_path: Path) -> None:
    page, report = tmp_path / "page.md", Report()
    report.write(page)
    empty = f"{BY_HAND}\n{END}\n"
    assert empty in page.read_text()
    by_hand = f"{BY_HAND}\n**Not met**: two\nlines.\n{END}\n"
    page.write_text(page.read_text().replace(empty, by_hand))
    report.row("Load", "500 streams", "all exact")
    for _ in range(2):
        report.write(page)
        assert page.read_text().count(by_hand) == 1
        assert "| 500 streams | all exact |" in page.read_text()


def test_nothing_of_the_page_stands_outside_what_is_kept() -> None:
    """But the rows, which are the tests' own."""
    text = (ROOT / "docs" / "resilience.md").read_text(encoding="utf-8")
    made = Report().page().partition(BY_HAND)[0].splitlines()
    found = text.partition(BY_HAND)[0].splitlines()
    assert [line for line in found if not line.startswith("Machine: ")] == [
        line for line in made if not line.startswith("Machine: ")
    ]
    rest = [line for line in text.partition(END)[2].splitlines() if line]
    assert all(line.startswith(("## ", "|")) for line in rest)

from types import SimpleNamespace
from typing import Any

from tests.support.resilience import Report


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

"""Names the models that a test uses, and, if the test fails, their stand-ins."""

from collections.abc import Generator

import pytest

from deploy import cards
from local.standins import cache


def models_of(item: pytest.Item) -> set[str]:
    """The models that a test uses: its container's, or those named by its parameters or its module;
    a test that names none starts the default model's."""
    parameters = (
        item.callspec.params
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else {}
    )
    named = {value for value in parameters.values() if value in cards.names()}
    return named or {getattr(getattr(item, "module", None), "MODEL", cards.DEFAULT_MODEL)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failed test's report the stand-ins that it used or would have used."""
    report = yield
    if report.failed:
        keys = [f"{name}-{cache.key(cards.load(name))}" for name in sorted(models_of(item))]
        report.sections.append(("stand-ins", ", ".join(keys)))
    return report

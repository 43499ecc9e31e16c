"""Which models a test asks, and the stand-ins of them that a failed one names."""

from collections.abc import Generator

import pytest

from deploy import cards
from local.standins import cache


def models_of(item: pytest.Item) -> set[str]:
    """The models that a test asks: its container's, or those that its parameters or its module
    name; a test that names none starts the default model's."""
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
    """A failed test says which stand-ins it asked, or would have."""
    report = yield
    if report.failed:
        keys = [f"{name}-{cache.key(cards.load(name))}" for name in sorted(models_of(item))]
        report.sections.append(("stand-ins", ", ".join(keys)))
    return report

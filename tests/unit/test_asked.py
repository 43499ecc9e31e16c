"""A failed test of a container names the stand-in that it asked, with its key."""

from types import SimpleNamespace
from typing import Any

import pytest

from deploy import cards
from local.standins import cache
from tests.support import asked


def sections(item: Any, failed: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    report = SimpleNamespace(failed=failed, sections=found)
    steps: Any = asked.pytest_runtest_makereport(item, None)  # type: ignore
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(report)
    assert end.value.value is report
    return found


def named(*models: str) -> list[tuple[str, str]]:
    keys = [f"{model}-{cache.key(cards.load(model))}" for model in models]
    return [("stand-ins", ", ".join(keys))]


@pytest.mark.parametrize("container", ["mistral-7b", "pixtral-12b"])
def test_a_failed_test_names_its_container_s_stand_in(
    container: str, request: pytest.FixtureRequest
) -> None:
    assert sections(request.node, failed=True) == named(container)
    assert sections(request.node, failed=False) == []


@pytest.mark.parametrize(("one", "other"), [("pixtral-12b", "mistral-7b")])
def test_one_that_asks_several_names_them_all(
    one: str, other: str, request: pytest.FixtureRequest
) -> None:
    assert sections(request.node, failed=True) == named(other, one)


def test_one_without_a_container_names_its_module_s_or_the_default(
    request: pytest.FixtureRequest,
) -> None:
    module = SimpleNamespace(MODEL="mixtral-8x7b")
    assert sections(SimpleNamespace(module=module), failed=True) == named("mixtral-8x7b")
    assert sections(request.node, failed=True) == named(cards.DEFAULT_MODEL)

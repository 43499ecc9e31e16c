"""Answers without the engine have a rate limit while it answers others."""

from typing import Any

import pytest
from predict import rate_limit
from predict.rate_limit import A_SECOND, AT_ONCE, MOST_SECONDS, AnswerRate
from predict.requests.turns import LATELY_SECONDS

from tests.support.clocks import clock_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return clock_of(monkeypatch, rate_limit)


def test_the_first_are_not_delayed_and_later_ones_have_a_distance(clock: Any) -> None:
    rate = AnswerRate()
    delays = [rate.delay(True) for _ in range(AT_ONCE + 40)]
    assert delays[:AT_ONCE] == pytest.approx([0.0] * AT_ONCE, abs=1e-9)
    assert delays[AT_ONCE:] == pytest.approx([(i + 1) / A_SECOND for i in range(40)])


def test_a_delay_has_a_bound_and_ends_with_the_flood(clock: Any) -> None:
    rate = AnswerRate()
    assert max(rate.delay(True) for _ in range(100_000)) == MOST_SECONDS
    clock.seconds += MOST_SECONDS + 1 / A_SECOND
    assert rate.delay(True) == 0.0


def test_none_is_delayed_where_the_engine_has_no_work(clock: Any) -> None:
    rate = AnswerRate()
    assert not any(rate.delay(False) for _ in range(1000))
    rate.delay(True)
    clock.seconds += LATELY_SECONDS
    assert any(rate.delay(False) for _ in range(2 * AT_ONCE))
    clock.seconds += 0.1
    assert not any(rate.delay(False) for _ in range(1000))

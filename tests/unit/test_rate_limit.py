"""Answers without the engine have a rate limit while it answers others."""

import pytest
from predict import rate_limit
from predict.rate_limit import A_SECOND, AT_ONCE, MOST_SECONDS, AnswerRate
from predict.requests.turns import LATELY_SECONDS


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


@pytest.fixture
def beside_the_engine(clock: Clock) -> AnswerRate:
    rate = AnswerRate()
    rate.engine_at = clock.now
    return rate


def test_the_first_are_not_delayed_and_later_ones_have_a_distance(
    beside_the_engine: AnswerRate,
) -> None:
    delays = [beside_the_engine.delay() for _ in range(AT_ONCE + 40)]
    assert delays[:AT_ONCE] == pytest.approx([0.0] * AT_ONCE, abs=1e-9)
    assert delays[AT_ONCE:] == pytest.approx([(i + 1) / A_SECOND for i in range(40)])


def test_a_delay_has_a_bound_and_ends_with_the_flood(
    beside_the_engine: AnswerRate, clock: Clock
) -> None:
    assert max(beside_the_engine.delay() for _ in range(100_000)) == MOST_SECONDS
    clock.now += MOST_SECONDS + 1 / A_SECOND
    assert beside_the_engine.delay() == 0.0


def test_none_is_delayed_where_the_engine_answers_nobody(
    beside_the_engine: AnswerRate, clock: Clock
) -> None:
    clock.now += LATELY_SECONDS + 1
    for rate in (AnswerRate(), beside_the_engine):
        assert not any(rate.delay() for _ in range(1000))

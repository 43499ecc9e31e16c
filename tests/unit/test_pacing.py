"""How many tokens an event carries, and which requests are told so."""

import pytest
from predict.pacing import ALWAYS, SHARE, TokenClock, interval, missing


def test_each_token_is_an_event_while_few_requests_run() -> None:
    found = {interval(running, 8, 0.001) for running in range(2 * SHARE)}
    assert found == {1}


@pytest.mark.parametrize(
    ("running", "tokens"), [(1, 1), (15, 1), (16, 2), (32, 4), (63, 7), (64, 8), (1000, 8)]
)
def test_an_event_carries_more_as_more_run(running: int, tokens: int) -> None:
    assert interval(running, 8, None) == tokens


@pytest.mark.parametrize(
    ("token_seconds", "tokens"), [(0.001, 8), (0.012, 8), (0.015, 6), (0.02, 5), (0.1, 4), (3, 4)]
)
def test_what_takes_longer_than_100_ms_is_sent_by_four(token_seconds: float, tokens: int) -> None:
    assert interval(64, 8, token_seconds) == tokens
    assert interval(17, 8, token_seconds) == 2
    assert ALWAYS == 4


@pytest.mark.parametrize(("most", "tokens"), [(1, 1), (2, 2), (8, 8), (20, 12)])
def test_the_setting_is_the_most(most: int, tokens: int) -> None:
    assert interval(100, most, None) == tokens


def test_only_a_stream_that_says_nothing_of_it_is_paced() -> None:
    assert missing({"stream": True}, 4) == {"stream_interval": 4}
    assert missing({"stream": True, "stream_interval": None}, 4) == {"stream_interval": 4}
    assert missing({"stream": True}, 1) == {}
    assert missing({"stream": True, "stream_interval": 1}, 4) == {}
    assert missing({"stream": False}, 4) == {}
    assert missing({}, 4) == {}


def test_the_clock_tells_the_time_between_two_tokens_of_one_stream() -> None:
    clock = TokenClock()
    clock.look(1000, 10, now=5.0)
    assert clock.token_seconds is None
    clock.look(2000, 20, now=6.0)
    assert clock.token_seconds == pytest.approx(0.02)
    clock.look(2000, 0, now=7.0)  # nothing was made: what was known stays
    assert clock.token_seconds == pytest.approx(0.02)

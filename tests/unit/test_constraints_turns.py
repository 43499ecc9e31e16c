"""Constrained requests take turns; nobody else waits, and none of them waits for ever."""

from types import SimpleNamespace
from typing import Any

import pytest

turns = pytest.importorskip("predict.constraints.turns")

SLOW, QUICK = 0.03, 0.00005


def request(seconds: float | None, key: str = "a") -> Any:
    grammar = None if seconds is None else SimpleNamespace(predict_cost=seconds)
    constraint = SimpleNamespace(grammar=grammar, structured_output_key=key) if grammar else None
    return SimpleNamespace(structured_output_request=constraint, next_decode_eligible_step=0)


class Scheduler:
    """As much of vLLM's as is looked at."""

    def __init__(self, *running: Any) -> None:
        self.running, self.waiting = list(running), list[Any]()
        self.deferred_waiting = set[Any]()
        self.current_step = 0

    def step(self, taken: Any) -> list[Any]:
        """Those that a step goes on with."""
        taken.begin(self)
        self.current_step += 1
        going = [one for one in self.running if self.current_step >= one.next_decode_eligible_step]
        taken.end(SimpleNamespace(total_num_scheduled_tokens=len(going)))
        return going


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(turns.time, "monotonic", lambda: now.seconds)
    return now


def test_masks_within_a_step_all_go_on() -> None:
    assert turns.chosen([QUICK] * 40, 0.0) == (set(range(40)), 0.0)


def test_the_quickest_go_on_and_the_others_share_what_is_saved() -> None:
    going, saved = turns.chosen([SLOW, QUICK, SLOW, QUICK], 0.01)
    assert going == {0, 1, 3}
    assert saved == pytest.approx(0.01 - SLOW)
    assert turns.chosen([SLOW, QUICK], -0.001) == ({1}, -0.001)


def test_slow_masks_beside_others_keep_within_their_share(clock: Any) -> None:
    other, slow = request(None), [request(SLOW) for _ in range(8)]
    scheduler, taken = Scheduler(other, request(QUICK), *slow), turns.Turns()
    began, made = clock.seconds, {id(one): 0 for one in slow}
    for _ in range(2000):
        going = scheduler.step(taken)
        assert going[:2] == scheduler.running[:2]
        clock.seconds += 0.005
        for one in going[2:]:
            made[id(one)] += 1
            clock.seconds += SLOW
    share = sum(made.values()) * SLOW / (clock.seconds - began)
    assert share < turns.SHARE + 0.02
    assert min(made.values()) > 5
    assert max(made.values()) - min(made.values()) <= 1


def test_where_nobody_else_waits_one_at_least_goes_on(clock: Any) -> None:
    scheduler, taken = Scheduler(*(request(SLOW) for _ in range(4))), turns.Turns()
    seen = [scheduler.step(taken) for _ in range(8)]
    assert [len(going) for going in seen] == [1] * 8
    assert {id(one) for going in seen for one in going} == {id(one) for one in scheduler.running}


def test_those_that_wait_for_a_slot_do_not_stop_those_that_run(clock: Any) -> None:
    scheduler, taken = Scheduler(request(SLOW), request(SLOW)), turns.Turns()
    scheduler.waiting = [request(None)]
    seen = [len(scheduler.step(taken)) for _ in range(10)]
    assert sum(seen) >= 4  # though no time passes


def test_first_masks_of_a_step_are_few(clock: Any) -> None:
    taken = turns.Turns()
    taken.begin(Scheduler())
    assert [taken.admits(request(0.0, f"new {n}")) for n in range(6)].count(True) == 4
    grammar = SimpleNamespace(predict_key="slow")
    taken.made(grammar, SLOW)
    clock.seconds += 1
    taken.begin(Scheduler())
    assert [taken.admits(request(0.0, "slow")) for _ in range(3)] == [True, False, False]
    taken.begin(Scheduler())
    assert not taken.admits(request(0.0, "slow"))  # what was saved is spent
    assert taken.admits(request(0.0, "new"))


def test_what_a_mask_took_fades() -> None:
    taken, grammar = turns.Turns(), SimpleNamespace(predict_key="a")
    for seconds in (SLOW, QUICK, QUICK):
        taken.made(grammar, seconds)
    assert turns.cost(grammar) == pytest.approx(SLOW * turns.FADING**2)


def test_an_error_ends_the_turns_and_not_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "turns", turns.Turns())

    def fails(*_: Any) -> None:
        calls.append(1)
        raise AttributeError("what a request said")

    calls: list[int] = []
    assert turns.safely(fails, otherwise=True) is True
    assert turns.safely(fails) is None
    assert len(calls) == 1
    assert "AttributeError" in caplog.text
    assert "what a request said" not in caplog.text


def test_vllm_schedules_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scheduling:
        def schedule(self) -> str:
            return "a step"  # not what `end` reads

        def _handle_blocked_waiting_request(self, request: Any) -> bool:
            request.status = "ready"
            return True

    monkeypatch.setattr(turns, "turns", turns.Turns())
    monkeypatch.setattr(turns, "Scheduler", Scheduling)
    turns.register()
    scheduler, asked = Scheduling(), SimpleNamespace(status=turns.GRAMMAR)
    assert scheduler.schedule() == "a step"
    assert scheduler._handle_blocked_waiting_request(asked)
    assert asked.status == "ready"
    assert turns.turns.failed

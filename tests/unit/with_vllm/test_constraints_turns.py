"""Constrained requests take turns; nobody else waits, and none of them waits for ever."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.clocks import clock_of

turns = pytest.importorskip("predict.constraints.turns")
from predict.scheduling import GRAMMAR  # noqa: E402  # needs vLLM too

SLOW, QUICK, MODEL = 0.015, 0.00005, 0.005  # seconds: of masks, and of a step without them

Masks = Callable[[int], float]  # the n-th mask's seconds


def request(
    masks: float | Masks | None, key: str = "", tried: float = 0.0, going: bool = True
) -> Any:
    """One that runs, and has had a mask, or one that waits for its first."""
    constraint = None
    if masks is not None:
        made = masks if callable(masks) else lambda _: masks
        grammar = SimpleNamespace(predict_key=hash(key or id(made)), number=0, made=made)
        constraint = SimpleNamespace(grammar=grammar, structured_output_key=key or id(made))
        if going:
            grammar.predict_cost = made(0)
    return SimpleNamespace(
        status=GRAMMAR if constraint else None,
        structured_output_request=constraint,
        sampling_params=SimpleNamespace(extra_args={turns.EXTRA: tried} if tried else None),
        next_decode_eligible_step=0,
        tokens=0,
    )


class Scheduler:
    """As much of vLLM's as is looked at, and a clock."""

    def __init__(self, clock: Any, *running: Any, waiting: Any = ()) -> None:
        self.clock, self.turns = clock, turns.ConstraintTurns()
        self.running, self.waiting = list(running), list(waiting)
        self.deferred_waiting = set[int]()
        self.max_num_active_reqs = 256
        self.current_step = 0
        self.longest = 0.0  # a step's masks

    def step(self) -> list[Any]:
        """Those that a step goes on with."""
        self.turns.begin(self)
        self.current_step += 1
        going = [one for one in self.running if self.current_step >= one.next_decode_eligible_step]
        came = [one for one in self.waiting if self.turns.admits(one)]
        self.waiting = [one for one in self.waiting if one not in came]
        self.deferred_waiting = {id(one) for one in self.waiting}
        self.running += came
        going += came
        self.turns.scheduled(self, SimpleNamespace(total_num_scheduled_tokens=len(going)))
        masks = 0.0
        for one in going:
            one.tokens += 1
            if constraint := one.structured_output_request:
                grammar = constraint.grammar
                seconds = grammar.made(grammar.number)
                grammar.number += 1
                self.turns.record(grammar, seconds)
                masks += seconds
        self.longest = max(self.longest, masks)
        self.clock.seconds += masks + (MODEL if going else 0.001)
        return going

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return clock_of(monkeypatch, turns)


@pytest.mark.parametrize("count", [1, 64, 256])
@pytest.mark.parametrize("others", [0, 1])
def test_ordinary_schemas_go_on_in_every_step(clock: Any, count: int, others: int) -> None:
    unconstrained = [request(None) for _ in range(others)]
    scheduler = Scheduler(clock, *unconstrained, *(request(QUICK) for _ in range(count)))
    scheduler.steps(50)
    assert {one.tokens for one in scheduler.running} == {50}


def test_ordinary_schemas_go_on_in_every_step_beside_slow_ones(clock: Any) -> None:
    ordinary, slow = [request(QUICK) for _ in range(20)], [request(SLOW) for _ in range(8)]
    scheduler = Scheduler(clock, *ordinary, *slow)
    scheduler.steps(500)
    assert {one.tokens for one in ordinary} == {500}
    assert min(one.tokens for one in slow) > 5


def test_slow_masks_beside_others_keep_within_their_share(clock: Any) -> None:
    slow = [request(SLOW) for _ in range(8)]
    scheduler, began = Scheduler(clock, request(None), *slow), clock.seconds
    scheduler.steps(2000)
    made = [one.tokens for one in slow]
    assert scheduler.running[0].tokens == 2000
    assert sum(made) * SLOW / (clock.seconds - began) < turns.SHARE + 0.02
    assert min(made) > 5
    assert max(made) - min(made) <= 1
    assert scheduler.longest < turns.STEP_SECONDS + SLOW


def test_where_nobody_else_waits_a_step_has_ten_milliseconds(clock: Any) -> None:
    middling = [request(0.002) for _ in range(4)]
    scheduler = Scheduler(clock, *middling)
    scheduler.steps(8)
    assert {one.tokens for one in middling} == {8}


def test_slower_masks_leave_most_of_the_time_to_those_who_may_come(clock: Any) -> None:
    slow = [request(SLOW) for _ in range(4)]
    scheduler, began = Scheduler(clock, *slow), clock.seconds
    scheduler.steps(2000)
    share = sum(one.tokens for one in slow) * SLOW / (clock.seconds - began)
    assert turns.ALONE_SHARE - 0.05 < share < turns.ALONE_SHARE + 0.02
    assert scheduler.longest <= SLOW


def test_those_that_wait_for_a_slot_do_not_stop_those_that_run(clock: Any) -> None:
    scheduler = Scheduler(clock, request(SLOW), request(SLOW))
    scheduler.turns.admits = lambda _: False
    scheduler.waiting = [request(None)]
    for _ in range(1000):
        scheduler.deferred_waiting.clear()
        scheduler.step()
    assert min(one.tokens for one in scheduler.running) > 10


@pytest.mark.parametrize(
    "running",
    [[QUICK], [SLOW], [QUICK, SLOW, None], [None], [SLOW] * 20],
    ids=["a quick one", "a slow one", "all kinds", "an unconstrained one", "many slow ones"],
)
@pytest.mark.parametrize("known", ["tried", "seen"])
def test_a_newcomer_that_is_known_to_be_slow_starts_beside_whatever_runs(
    clock: Any, running: list[float | None], known: str
) -> None:
    others = [request(one) for one in running]
    scheduler = Scheduler(clock, *others)
    scheduler.steps(100)
    if known == "seen":
        scheduler.turns.record(request(SLOW, "slow").structured_output_request.grammar, SLOW)
    tried = SLOW if known == "tried" else 0.0
    newcomers = [request(SLOW, "slow", tried, going=False) for _ in range(8)]
    scheduler.waiting = list(newcomers)
    scheduler.steps(6000)
    assert min(one.tokens for one in newcomers) > 3
    before = [one.tokens for one in others]
    scheduler.steps(3000)
    assert all(one.tokens > then for one, then in zip(others, before, strict=True))


def test_newcomers_without_end_do_not_stop_those_that_run(clock: Any) -> None:
    slow = [request(SLOW) for _ in range(4)]
    scheduler = Scheduler(clock, request(None), *slow)
    for _ in range(1000):
        scheduler.waiting.append(request(SLOW, "slow", SLOW, going=False))
        scheduler.step()
        scheduler.running = scheduler.running[:5]
    assert min(one.tokens for one in slow) > 5
    assert scheduler.longest < turns.STEP_SECONDS + SLOW


def test_masks_that_are_never_as_expected_stop_nobody(clock: Any) -> None:
    def surprising(number: int) -> float:
        return SLOW if number % 100 == 99 else QUICK

    slow = request(SLOW)
    scheduler = Scheduler(clock, request(None), slow, *(request(surprising) for _ in range(60)))
    scheduler.steps(2000)
    assert slow.tokens > 5


@pytest.mark.parametrize("cheap", [0, 3, 26, 60])
@pytest.mark.parametrize("count", [8, 80])
def test_answers_to_one_prompt_are_not_slow_in_the_same_step(
    clock: Any, cheap: int, count: int
) -> None:
    """As with n, behind a prefix whose masks are cheap; trial.py has seen what comes."""

    def behind_a_prefix(number: int) -> float:
        return QUICK if number < cheap else SLOW

    waiting = [request(behind_a_prefix, "a", SLOW, going=False) for _ in range(count)]
    scheduler = Scheduler(clock, request(None), waiting=waiting)
    scheduler.steps(3000)
    assert scheduler.longest < turns.STEP_SECONDS + 3 * SLOW
    assert min(one.tokens for one in waiting) > cheap / 2


def test_first_masks_that_are_quicker_share_a_step_and_wait_for_no_budget(clock: Any) -> None:
    slow = [request(SLOW) for _ in range(8)]
    quicker = [request(0.001, f"{n}", 0.001, going=False) for n in range(10)]
    scheduler = Scheduler(clock, request(None), *slow, waiting=quicker)
    scheduler.steps(3)
    assert all(one.tokens for one in quicker)
    assert scheduler.longest <= 2 * turns.STEP_SECONDS + SLOW


def test_a_constraint_nobody_has_had_waits_while_many_threads_are_left_behind(clock: Any) -> None:
    crowd = [True]
    had, new = request(QUICK, "had", going=False), request(QUICK, "new", going=False)
    scheduler = Scheduler(clock, request(QUICK, "had"), waiting=[had, new])
    scheduler.turns.is_crowded = lambda: crowd[0]
    scheduler.steps(3)
    assert (had.tokens > 0, new.tokens) == (True, 0)
    crowd.clear()
    crowd.append(False)
    scheduler.steps(1)
    assert new.tokens == 1


def test_one_that_came_last_has_its_turn_last(clock: Any) -> None:
    slow = [request(SLOW) for _ in range(4)]
    scheduler = Scheduler(clock, request(None), *slow)
    scheduler.steps(200)
    scheduler.waiting = [request(SLOW, "slow", SLOW, going=False)]
    while scheduler.waiting:
        scheduler.step()
    newcomer, before = scheduler.running[-1], [one.tokens for one in slow]
    while newcomer.tokens < 2:
        scheduler.step()
    assert all(one.tokens > then for one, then in zip(slow, before, strict=True))


def test_vllm_s_own_reason_to_wait_is_kept(clock: Any) -> None:
    scheduler = Scheduler(clock, request(None), request(SLOW), request(SLOW))
    for one in scheduler.running[1:]:
        one.next_decode_eligible_step = 50
    scheduler.turns.begin(scheduler)
    assert [one.next_decode_eligible_step for one in scheduler.running] == [0, 50, 50]


def test_what_was_charged_is_given_back_and_what_was_not_is_charged(clock: Any) -> None:
    taken, one = turns.ConstraintTurns(), request(SLOW)
    grammar = one.structured_output_request.grammar
    taken.charge(one, SLOW)
    taken.record(grammar, 0.001)
    assert taken.budget == pytest.approx(-0.001)
    taken.record(grammar, SLOW)
    assert taken.budget == pytest.approx(-0.001 - SLOW)
    for _ in range(100):
        taken.record(grammar, SLOW)
    assert taken.budget == -turns.DEBT_SECONDS


def test_what_a_mask_took_fades() -> None:
    taken, one = turns.ConstraintTurns(), request(SLOW, going=False)
    for seconds in (SLOW, QUICK, QUICK):
        taken.record(one.structured_output_request.grammar, seconds)
    assert turns.expected(one) == pytest.approx(SLOW * turns.FADING**2)


@pytest.mark.parametrize("seconds", [0.05, 0.0036])
def test_slow_ones_leave_half_the_seats_to_others(clock: Any, seconds: float) -> None:
    slow = [request(seconds, f"{number}", tried=seconds, going=False) for number in range(20)]
    scheduler = Scheduler(clock, waiting=slow)
    scheduler.max_num_active_reqs = 16
    scheduler.steps(2000)
    assert len(scheduler.running) == 8
    scheduler.running = scheduler.running[1:]  # one has its answer
    scheduler.waiting.append(request(0.0, "quick", going=False))
    scheduler.steps(200)
    assert len(scheduler.running) == 9
    assert len(scheduler.waiting) == 11


def test_one_whose_grammar_is_not_there_waits_and_one_that_failed_is_vllm_s_to_refuse() -> None:
    """Both are charged nothing."""
    taken, one = turns.ConstraintTurns(), request(SLOW, tried=SLOW, going=False)
    for grammar, admitted in ((None, False), (ValueError("took too long before"), True)):
        one.structured_output_request.grammar = grammar
        assert taken.admits(one) == admitted
    assert taken.budget == 0.0

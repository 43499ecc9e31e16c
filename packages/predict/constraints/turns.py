"""Part of the engine's plugin: requests with slow masks take turns, so that a step of the engine,
for which every request waits, makes few of them.

Promises: masks of up to `QUICK_SECONDS` are made in every step. Slower ones have a budget, which
grows by `SHARE` of the time up to `STEP_SECONDS`. While any is left, the request that has waited
longest goes on, so a step has at most one mask too many. If no other request wants a step, it has
`ALONE_SECONDS`, or masks that take longer have `ALONE_SHARE` of the time, because another request
may come. Only constrained requests wait, and none for ever; those with slow masks have at most half
of the engine's seats. While masks.py has many threads left behind, a constraint that has not run
before waits.

The time of a mask is predicted: from the request's own earlier masks or, for its first, from the
slowest that trial.py saw. The time it took is charged.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from predict.constraints.recent import Recent
from predict.scheduling import GRAMMAR, SchedulerTurns, hold_back, take_turns

QUICK_SECONDS = 0.0002  # an ordinary schema's masks take up to 0.06 ms, mostly 0.006
SHARE = 0.3
SEAT_SECONDS = 0.001  # slower ones have half of the engine's seats
STEP_SECONDS = 0.004  # per step, also for first masks that are quicker
ALONE_SECONDS = 0.01
ALONE_SHARE = 0.4  # less than half, so that most requests that come find the engine free
DEBT_SECONDS = 0.5  # at most, by which unexpected time overdraws the budget
PAUSE_SECONDS = 1.0  # without a slow mask; then there is a budget again, whatever was charged
FADING = 0.95  # the weight of a mask's seconds, for each mask after it
MOST_KNOWN = 10_000  # constraints whose masks are remembered, as in verdicts.py

EXTRA = "predict_mask_seconds"  # of SamplingParams.extra_args: verdicts.py puts it there


def expected(request: Any) -> float:
    """Seconds expected of a running request's next mask; 0 without a constraint."""
    constraint = request.structured_output_request
    return float(getattr(constraint.grammar, "predict_cost", 0.0)) if constraint else 0.0


def key_of(grammar: Any) -> int | None:
    """The hash of a grammar's constraint, if masks.py could tell it."""
    key: int | None = getattr(grammar, "predict_key", None)
    return key


def foreseen(request: Any) -> float:
    """Seconds of the slowest mask that trial.py saw."""
    return float((request.sampling_params.extra_args or {}).get(EXTRA, 0.0))


def last_turn(request: Any) -> int:
    return int(getattr(request, "predict_turn", 0))


class ConstraintTurns(SchedulerTurns):
    """The turns of one scheduler."""

    whose = "constrained requests"

    def __init__(self) -> None:
        super().__init__()
        self.seen: Recent[float] = Recent(MOST_KNOWN)  # seconds, by a constraint's hash
        self.budget, self.at = 0.0, time.monotonic()
        self.charged_at = self.at
        self.was_idle = False  # the last step had nothing to do
        self.step = 0
        self.first_mask_seconds = 0.0  # of the quicker ones in this step
        self.newcomer_waits = False  # for the budget, since the last step
        self.newcomers_turn = False
        self.seats = 0  # for further requests with masks slower than SEAT_SECONDS
        self.is_crowded: Callable[[], bool] = lambda: False  # masks.py says so

    def record(self, grammar: Any, seconds: float) -> None:
        """Records what a mask took: charges what was not expected of it, and gives back what
        was."""
        grammar.predict_cost = max(seconds, getattr(grammar, "predict_cost", 0.0) * FADING)
        charged, grammar.predict_charged = getattr(grammar, "predict_charged", 0.0), 0.0
        spent = seconds if seconds > QUICK_SECONDS else 0.0
        self.budget = max(-DEBT_SECONDS, self.budget + charged - spent)
        if (key := key_of(grammar)) is not None:
            self.seen[key] = max(seconds, self.seen.get(key, 0.0) * FADING)

    def charge(self, request: Any, seconds: float) -> None:
        """Lets a request go on in the step that is being scheduled, for this charge."""
        request.predict_turn = self.step
        request.structured_output_request.grammar.predict_charged = seconds
        self.budget -= seconds
        self.charged_at = self.at

    def begin(self, scheduler: Any) -> None:
        """Holds back, from the step that is scheduled next, the requests whose turn it is not."""
        now = time.monotonic()
        constrained = [
            one for one in scheduler.running if one.structured_output_request is not None
        ]
        slow = [request for request in constrained if expected(request) > QUICK_SECONDS]
        taken = sum(max(expected(one), foreseen(one)) > SEAT_SECONDS for one in constrained)
        self.seats = max(1, scheduler.max_num_active_reqs // 2) - taken
        others = len(scheduler.running) > len(slow)
        others = others or len(scheduler.waiting) > len(scheduler.deferred_waiting)
        alone = self.was_idle or not others
        share = ALONE_SHARE if alone else SHARE
        self.budget = min(STEP_SECONDS, self.budget + (now - self.at) * share)
        self.at, self.step, self.first_mask_seconds = now, scheduler.current_step + 1, 0.0
        if alone and all(expected(request) <= ALONE_SECONDS for request in slow):
            self.budget = max(self.budget, ALONE_SECONDS)
        elif now - self.charged_at > PAUSE_SECONDS:
            self.budget = max(self.budget, STEP_SECONDS)
        kept_free = self.newcomer_waits and self.newcomers_turn
        self.newcomer_waits = False
        for request in sorted(slow, key=last_turn):
            if self.budget > 0 and not kept_free:
                self.charge(request, expected(request))
                self.newcomers_turn = True
            else:
                hold_back(scheduler, [request])

    def admits(self, request: Any) -> bool:
        """Whether a request's first mask may be made in this step."""
        if request.status != GRAMMAR:
            return True
        grammar = request.structured_output_request.grammar
        if grammar is None:
            return False  # not ready yet
        if isinstance(grammar, Exception):
            return True  # vLLM refuses it
        key = hash(request.structured_output_request.structured_output_key)
        if self.is_crowded() and key not in self.seen:
            return False
        seconds = max(foreseen(request), self.seen.get(key, 0.0))
        if seconds > SEAT_SECONDS and self.seats <= 0:
            return False
        if seconds > STEP_SECONDS:
            if self.budget <= 0:
                self.newcomer_waits = True
                return False
            self.newcomers_turn = False
            self.charge(request, seconds)
        elif seconds > QUICK_SECONDS:
            if self.first_mask_seconds and self.first_mask_seconds + seconds > STEP_SECONDS:
                return False
            self.first_mask_seconds += seconds
            self.charge(request, seconds)
        self.seats -= seconds > SEAT_SECONDS
        return True

    def scheduled(self, scheduler: Any, output: Any) -> None:
        self.was_idle = output.total_num_scheduled_tokens == 0


turns = ConstraintTurns()


@functools.cache
def register() -> None:
    take_turns(turns)

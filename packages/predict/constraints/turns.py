"""Part of the engine's plugin: requests whose masks are slow take turns, so that a step of the
engine, for which everybody waits, makes few of them.

Promises: masks of up to `QUICK_SECONDS` are made in every step. The others have a budget, which
grows by `SHARE` of the time to `STEP_SECONDS`: while there is some, whoever has waited longest goes
on, so that a step has one mask too many at most. Where nobody else wants a step, it has
`ALONE_SECONDS`, or masks that take longer have `ALONE_SHARE` of the time: somebody may come.
Nothing but constrained requests waits, and none for ever; those whose masks are slow have half the
engine's seats at most. While masks.py has many threads left behind, a constraint that nobody has
had yet waits.

What a mask is going to take is guessed: from a request's own masks before, and for a first one from
the slowest that trial.py saw. What it took is charged.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from predict.constraints.recent import Recent
from predict.guard import guarded
from predict.scheduling import hold_back

QUICK_SECONDS = 0.0002  # an ordinary schema's take up to 0.06 ms, mostly 0.006
SHARE = 0.3
SEAT_SECONDS = 0.001  # slower ones have half of the engine's seats
STEP_SECONDS = 0.004  # also of first masks that are quicker, in a step
ALONE_SECONDS = 0.01
ALONE_SHARE = 0.4  # less than half, so that most who come find the engine free
DEBT_SECONDS = 0.5  # at most, so that what was not expected is paid for
PAUSE_SECONDS = 1.0  # without a slow mask, after which there is a budget whatever was charged
FADING = 0.95  # what is left of an earlier mask's seconds after each further one
MOST_KNOWN = 10_000  # constraints whose masks are remembered, as in verdicts.py

EXTRA = "predict_mask_seconds"  # of SamplingParams.extra_args: verdicts.py puts it there
GRAMMAR = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR


def expected(request: Any) -> float:
    """Seconds of a running request's next mask; of one without a constraint, none."""
    constraint = request.structured_output_request
    return float(getattr(constraint.grammar, "predict_cost", 0.0)) if constraint else 0.0


def awaits_grammar(request: Any) -> bool:
    """Whether one that waits cannot be admitted for that. Its status and its place in
    `deferred_waiting` do not say so: both stay until vLLM looks at it again."""
    return request.status == GRAMMAR and request.structured_output_request.grammar is None


def key_of(grammar: Any) -> int | None:
    """The hash of its constraint, where masks.py could tell it."""
    key: int | None = getattr(grammar, "predict_key", None)
    return key


def foreseen(request: Any) -> float:
    """Seconds of the slowest mask that trial.py saw."""
    return float((request.sampling_params.extra_args or {}).get(EXTRA, 0.0))


def last_turn(request: Any) -> int:
    return int(getattr(request, "predict_turn", 0))


class Turns:
    """Of one scheduler."""

    def __init__(self) -> None:
        self.failed = False
        self.seen: Recent[float] = Recent(MOST_KNOWN)  # seconds, by a constraint's hash
        self.budget, self.at = 0.0, time.monotonic()
        self.charged_at = self.at
        self.was_idle = False  # the last step had nothing to do
        self.step = 0
        self.first_mask_seconds = 0.0  # of the quicker ones in this step
        self.newcomer_waits = False  # for a budget, since the last step
        self.newcomers_turn = False
        self.seats = 0  # for further requests with masks slower than SEAT_SECONDS
        self.is_crowded: Callable[[], bool] = lambda: False  # masks.py says so

    def record(self, grammar: Any, seconds: float) -> None:
        """What a mask took; charges what was not expected of it, and gives back what was."""
        grammar.predict_cost = max(seconds, getattr(grammar, "predict_cost", 0.0) * FADING)
        charged, grammar.predict_charged = getattr(grammar, "predict_charged", 0.0), 0.0
        spent = seconds if seconds > QUICK_SECONDS else 0.0
        self.budget = max(-DEBT_SECONDS, self.budget + charged - spent)
        if (key := key_of(grammar)) is not None:
            self.seen[key] = max(seconds, self.seen.get(key, 0.0) * FADING)

    def charge(self, request: Any, seconds: float) -> None:
        """Has a request go on in the step that is scheduled."""
        request.predict_turn = self.step
        request.structured_output_request.grammar.predict_charged = seconds
        self.budget -= seconds
        self.charged_at = self.at

    def begin(self, scheduler: Any) -> None:
        """Keeps those out of the step that is scheduled next whose turn it is not."""
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
        """Whether a request's first mask may be one of this step's."""
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

    def end(self, output: Any) -> None:
        self.was_idle = output.total_num_scheduled_tokens == 0


turns = Turns()


def safely(do: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
    """An error in here would end the engine, for everybody: after the first, nobody takes turns."""
    return guarded(turns, "constrained requests take no turns any more", do, arguments, otherwise)


def register() -> None:
    schedule = Scheduler.schedule
    if hasattr(schedule, "__wrapped__"):
        return
    handle = Scheduler._handle_blocked_waiting_request

    @functools.wraps(schedule)
    def schedule_in_turn(self: Any, *arguments: Any, **more: Any) -> Any:
        safely(turns.begin, self)
        output = schedule(self, *arguments, **more)
        safely(turns.end, output)
        return output

    @functools.wraps(handle)
    def handle_in_turn(self: Any, request: Any) -> bool:
        blocked = request.status == GRAMMAR
        if not handle(self, request):
            return False
        if blocked and not safely(turns.admits, request, otherwise=True):
            request.status = GRAMMAR
            return False
        return True

    Scheduler.schedule = schedule_in_turn
    Scheduler._handle_blocked_waiting_request = handle_in_turn

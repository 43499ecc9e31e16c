"""Part of the engine's plugin: requests whose masks are slow take turns, so that a step of the
engine, for which everybody waits, makes few of them.

Promises: the quickest masks of a step go on in every step, up to `STEP_SECONDS` together; the
others, those first that have waited longest, while they keep within `SHARE` of the time. Where
nobody else wants a step, up to `ALONE_SECONDS` of masks go on, and one at least. Nothing but
constrained requests waits, and none for ever.
"""

import functools
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from predict.vllm_internals import LOGGER

STEP_SECONDS = 0.004  # of masks that need no turn, in a step
SHARE = 0.3  # of the time may go into the others, while somebody else has something to do
SAVED_SECONDS = 0.01  # of that share, at most
ALONE_SECONDS = 0.01
UNKNOWN_SECONDS = 0.001  # taken for the first mask of a constraint that was never seen
MOST_KNOWN = 1000  # constraints whose first mask is remembered
FADING = 0.7  # what is left of an earlier mask's cost after each further one

GRAMMAR = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR

log = logging.getLogger(LOGGER)


def chosen(costs: Sequence[float], saved: float) -> tuple[set[int], float]:
    """Which requests go on, and what is left of the saved seconds. `costs` are the seconds of their
    next masks, those first that have waited longest."""
    if sum(costs) <= STEP_SECONDS:
        return set(range(len(costs))), saved
    going, total = set(), 0.0
    for one in sorted(range(len(costs)), key=costs.__getitem__):
        total += costs[one]
        if total > STEP_SECONDS:
            break
        going.add(one)
    for one, seconds in enumerate(costs):
        if saved <= 0:
            break
        if one not in going:
            saved -= seconds
            going.add(one)
    return going, saved


def cost(grammar: Any) -> float:
    """CPU seconds that a grammar's next mask is expected to take."""
    return float(getattr(grammar, "predict_cost", 0.0))


class Turns:
    """Of one scheduler."""

    def __init__(self) -> None:
        self.failed = False
        self.saved, self.at = 0.0, time.monotonic()
        self.first: OrderedDict[Any, float] = OrderedDict()  # seconds, by constraint
        self.rested = False  # the last step had nothing to do
        self.admitted = 0.0  # seconds of first masks in this step

    def made(self, grammar: Any, seconds: float) -> None:
        """Notes what a mask took."""
        before = getattr(grammar, "predict_cost", None)
        grammar.predict_cost = seconds if before is None else max(seconds, before * FADING)
        if before is None and (key := getattr(grammar, "predict_key", None)) is not None:
            self.first[key] = seconds
            self.first.move_to_end(key)
            while len(self.first) > MOST_KNOWN:
                self.first.popitem(last=False)

    def begin(self, scheduler: Any) -> None:
        """Holds back, for the step that is scheduled next, those whose turn it is not."""
        now = time.monotonic()
        self.saved = min(SAVED_SECONDS, self.saved + (now - self.at) * SHARE)
        self.at, self.admitted = now, 0.0
        step = scheduler.current_step + 1
        constrained = [
            request for request in scheduler.running if request.structured_output_request
        ]
        if not constrained:
            return
        waiting = len(scheduler.waiting) > len(scheduler.deferred_waiting)
        alone = self.rested or not (waiting or len(constrained) < len(scheduler.running))
        constrained.sort(key=lambda request: getattr(request, "predict_turn", 0))
        costs = [cost(request.structured_output_request.grammar) for request in constrained]
        if alone:
            going, _ = chosen(costs, ALONE_SECONDS - STEP_SECONDS)
            self.saved = min(self.saved, 0.0)  # who comes now is not to wait for what was saved
        else:
            going, self.saved = chosen(costs, self.saved)
        for number in going:
            constrained[number].predict_turn = step
        for request in constrained:
            if getattr(request, "predict_turn", 0) != step:
                request.next_decode_eligible_step = step + 1

    def admits(self, request: Any) -> bool:
        """Whether a request's first mask may be one of this step's."""
        key = request.structured_output_request.structured_output_key
        seconds = self.first.get(key, UNKNOWN_SECONDS)
        slow = seconds > STEP_SECONDS
        if self.admitted and self.admitted + seconds > STEP_SECONDS:
            return False
        if slow and self.saved <= 0 and not self.rested:
            return False
        self.admitted += seconds
        if slow:
            self.saved -= seconds
        return True

    def end(self, output: Any) -> None:
        self.rested = output.total_num_scheduled_tokens == 0


turns = Turns()


def safely(do: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
    """An error in here would end the engine, for everybody: after the first, nobody takes turns."""
    if turns.failed:
        return otherwise
    try:
        return do(*arguments)
    except Exception as error:
        turns.failed = True
        log.error("constrained requests take no turns any more: %s", type(error).__name__)
        return otherwise


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

"""What prefill_turns.py, images/turns.py and constraints/turns.py do alike in vLLM's scheduler."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

QUICK_SECONDS = 0.04  # of a step, which others wait for

Safely = Callable[..., Any]  # calls its first argument with the others, and raises nothing


class SchedulerTurns:
    """Of one scheduler: what is asked around each step. Here nothing is changed."""

    def begin(self, scheduler: Any) -> None:
        """Before a step is scheduled."""

    def admits(self, request: Any) -> bool:
        """Whether a request that waits may start in this step."""
        return True

    def tried(self, request: Any, ready: bool) -> None:
        """`ready`: vLLM admits it if it fits the cache."""

    def restore(self, scheduler: Any) -> None:
        """After a step was scheduled, whatever has failed."""

    def scheduled(self, scheduler: Any, output: Any) -> None:
        """What is in the step."""

    def updated(self, output: Any) -> None:
        """A step has ended."""


def take_turns(turns: SchedulerTurns, safely: Safely) -> None:
    """Has vLLM's scheduler ask these, beside those that it asks already."""
    schedule, update = Scheduler.schedule, Scheduler.update_from_output
    handle = Scheduler._handle_blocked_waiting_request

    @functools.wraps(schedule)
    def schedule_in_turn(self: Any, *arguments: Any, **more: Any) -> Any:
        safely(turns.begin, self)
        try:
            output = schedule(self, *arguments, **more)
        finally:
            turns.restore(self)
        safely(turns.scheduled, self, output)
        return output

    @functools.wraps(handle)
    def handle_in_turn(self: Any, request: Any) -> bool:
        if not safely(turns.admits, request, otherwise=True):
            return False
        ready = bool(handle(self, request))
        safely(turns.tried, request, ready)
        return ready

    @functools.wraps(update)
    def update_in_turn(self: Any, output: Any, *arguments: Any, **more: Any) -> Any:
        safely(turns.updated, output)
        return update(self, output, *arguments, **more)

    Scheduler.schedule = schedule_in_turn
    Scheduler._handle_blocked_waiting_request = handle_in_turn
    Scheduler.update_from_output = update_in_turn


def hold_back(scheduler: Any, requests: Iterable[Any]) -> None:
    """Keeps requests that run out of the step that is scheduled next."""
    after = scheduler.current_step + 2
    for request in requests:
        request.next_decode_eligible_step = max(request.next_decode_eligible_step, after)


class StepTimes:
    """Of the steps that are under way. They end in order, and another may have been under way when
    one began (async scheduling). All times in seconds of one clock."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Any, float, Any]] = []
        self.last_end = float("-inf")  # of a step that is timed or not

    def begun(self, output: Any, at: float, mark: Any = True) -> None:
        self.under_way.append((output, at, mark))

    def ended(self, output: Any, now: float) -> Iterator[tuple[Any, Any, float]]:
        """The timed steps that are over with this one, their marks and what they took."""
        while any(step is output for step, _, _ in self.under_way):
            step, began, mark = self.under_way.pop(0)
            yield step, mark, now - max(began, self.last_end)
        self.last_end = now

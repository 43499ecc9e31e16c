"""What prefill_turns.py, images/turns.py and constraints/turns.py share in vLLM's scheduler.

Promises: an error in one of them, which would end the engine for all requests, only ends its turns:
after the first error it changes nothing more, and the log says so once.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from predict.vllm_internals import LOGGER

GRAMMAR = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR

log = logging.getLogger(LOGGER)


class SchedulerTurns:
    """The turns of one scheduler: what is called around each step. This class changes nothing by
    itself."""

    whose = "requests"  # whose turns these are, for the log

    def __init__(self) -> None:
        self.failed = False
        self.own_limits: tuple[int, int, bool] | None = None  # the scheduler's, before `limit`

    def safely(self, do: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        """What `do` returns; `otherwise` from the first error on."""
        if self.failed:
            return otherwise
        try:
            return do(*arguments)
        except Exception as error:
            self.failed = True
            log.error("%s take no turns any more: %s", self.whose, type(error).__name__)
            return otherwise

    def begin(self, scheduler: Any) -> None:
        """Before a step is scheduled."""

    def admits(self, request: Any) -> bool:
        """Whether a request that waits may start in this step."""
        return True

    def tried(self, request: Any, ready: bool) -> None:
        """vLLM looks at a request that waits; `ready`: it admits the request if that fits the
        cache."""

    def limit(self, scheduler: Any, tokens: int) -> None:
        """At most `tokens` of a prompt in the step that is scheduled next, or fewer if vLLM's own
        threshold is lower. vLLM's adaptive threshold is raised to a request's share of the step.
        For `begin`, where prompts may be divided (`enable_chunked_prefill`)."""
        config, most = scheduler.scheduler_config, scheduler.max_num_scheduled_tokens
        threshold = config.long_prefill_token_threshold
        adaptive = scheduler.adaptive_long_prefill_threshold
        self.own_limits = threshold, most, adaptive
        requests = sum(scheduler.get_request_counts())
        if threshold and adaptive:
            threshold = max(threshold, config.max_num_batched_tokens // max(1, requests))
        config.long_prefill_token_threshold = min(threshold or tokens, tokens)
        scheduler.adaptive_long_prefill_threshold = False
        if requests == 1:  # vLLM then ignores the threshold
            scheduler.max_num_scheduled_tokens = min(most, tokens)

    def restore(self, scheduler: Any) -> None:
        """After a step was scheduled, even if something failed."""
        if self.own_limits is not None:
            threshold, scheduler.max_num_scheduled_tokens, adaptive = self.own_limits
            scheduler.scheduler_config.long_prefill_token_threshold = threshold
            scheduler.adaptive_long_prefill_threshold = adaptive
            self.own_limits = None

    def scheduled(self, scheduler: Any, output: Any) -> None:
        """After a step was scheduled: what is in it."""

    def updated(self, output: Any) -> None:
        """After a step has ended."""


def take_turns(turns: SchedulerTurns) -> None:
    """Has vLLM's scheduler call these turns, beside those it already calls."""
    schedule, update = Scheduler.schedule, Scheduler.update_from_output
    handle = Scheduler._handle_blocked_waiting_request
    safely = turns.safely

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


def awaits_grammar(request: Any) -> bool:
    """Whether a waiting request cannot be admitted because of its grammar. Its status and its place
    in `deferred_waiting` do not say so: both stay until vLLM looks at it again."""
    return request.status == GRAMMAR and request.structured_output_request.grammar is None


def hold_back(scheduler: Any, requests: Iterable[Any]) -> None:
    """Keeps running requests out of the step that is scheduled next."""
    after = scheduler.current_step + 2
    for request in requests:
        request.next_decode_eligible_step = max(request.next_decode_eligible_step, after)


class StepTimes:
    """Times the steps that are under way. They end in order; with async scheduling, another may
    have been under way when one began. All times in seconds of one clock."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Any, float, Any]] = []
        self.last_end = float("-inf")  # of any step, timed or not

    def begun(self, output: Any, at: float, mark: Any = True) -> None:
        self.under_way.append((output, at, mark))

    def ended(self, output: Any, now: float) -> Iterator[tuple[Any, Any, float]]:
        """The timed steps that end with this one, with their marks and durations."""
        while any(step is output for step, _, _ in self.under_way):
            step, began, mark = self.under_way.pop(0)
            yield step, mark, now - max(began, self.last_end)
        self.last_end = now

"""Part of the engine's plugin: long prompts are prefilled so that a short one need not wait for
them.

vLLM gives a step's tokens to what runs first, then to what waits, in order of arrival: a long
prompt takes all tokens of its steps, and nobody behind it, or behind one that does not fit the KV
cache, is looked at. `--long-prefill-token-threshold` cuts each of them, and as many as fill a step
still take all of it; with `-adaptive` all go on at once, so that all end when the last one does.

Promises: a prompt of up to a quarter of a step's tokens, or of which the prefix cache has all but a
sixteenth, waits for no long one but the steps that are under way (two with async scheduling), where
it and those before it fit the KV cache. Where such prompts came lately, steps have one long prompt,
in order, and as much of it as takes QUICK_SECONDS, or twice a step without long ones where that is
more: a sixteenth to a quarter of a step's tokens.
Long ones have every second step at least, and all where the short ones do not fit the cache. Where
all are long, or all short, nothing is changed. Prompts whose log probabilities are asked for cost
several times as much, by the vocabulary: they are long ones, of which a step always has as much as
is quick, and a sixteenth at most.
"""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from predict.constraints.turns import awaits_grammar
from predict.guard import guarded
from predict.images.turns import has_image_work
from predict.scheduling import QUICK_SECONDS, SchedulerTurns, StepTimes, hold_back, take_turns

LEAST_COSTLY = 4  # tokens that a step has of a prompt whose log probabilities are asked for
LATELY_SECONDS = 10.0  # short prompts that came so lately are followed by more


def ids_of(requests: Iterable[Any]) -> set[str]:
    return {request.request_id for request in requests}


def awaits_own_output(request: Any) -> bool:
    """Whether vLLM passes over one that was preempted, until its last steps have ended."""
    return bool(request.num_stale_output_tokens) and not request.drop_stale_output


def is_costly(request: Any) -> bool:
    """Whether log probabilities of its prompt are asked for."""
    asked = request.sampling_params
    return asked is not None and asked.prompt_logprobs is not None


class PrefillTurns(SchedulerTurns):
    """Of one scheduler."""

    def __init__(self) -> None:
        self.failed = False
        self.long_tokens = self.rest_tokens = 0  # a longer prompt is long, until less is left
        self.held = False  # the step that is scheduled has none of them
        self.cut: int | None = None  # tokens that it has of one, if it is not to have all it can
        self.has_room = True  # for one that waits
        self.tokens_a_second = 0.0  # of the last step with long ones
        self.base_seconds = 0.0  # of the last step without: mostly reading the weights
        self.costly_tokens = 10**9  # of a costly one that are quick, as far as is known
        self.times = StepTimes()  # marked: the step has long ones, and tokens of costly ones
        self.running: list[Any] = []  # long ones, before the step and those that it admits
        self.refused: set[str] = set()  # looked at in the step before: for a mask it is too early
        self.last: str | None = None  # that vLLM tried to admit to the step
        self.blocked: str | None = None  # does not fit the cache; nobody behind it is looked at
        self.holders: set[str] = set()  # what ran then
        self.own_limits: tuple[int, int, bool] | None = None  # of the scheduler
        self.cache: Any = None  # the scheduler's, of blocks of tokens
        self.groups: list[int] = []  # of its layers
        self.short_at = self.at = -math.inf

    def is_long(self, request: Any) -> bool:
        if is_costly(request):
            return bool(request.num_computed_tokens < request.num_prompt_tokens)
        if request.num_prompt_tokens <= self.long_tokens:
            return False
        left = request.num_tokens - request.num_computed_tokens
        if left <= self.rest_tokens or has_image_work(request):
            return False
        return not self.is_cached(request)

    def is_short(self, request: Any) -> bool:
        if request.mm_features or is_costly(request):
            return False
        return request.num_prompt_tokens <= self.long_tokens or self.is_cached(request)

    def is_cached(self, request: Any) -> bool:
        """Whether the prefix cache has a long prompt but for a little: each new token costs more,
        the more are before it. vLLM counts that when it first admits a request. Of one that waits
        this looks at the last block that it takes: a block's hash is that of all before it too, and
        vLLM gives up the end of a prompt first."""
        if request.num_preemptions:
            return False
        if request.num_computed_tokens:
            counted = request.prefill_stats  # until the first token
            if counted is None or not counted.num_cached_tokens:
                return False
            return bool(counted.num_computed_tokens <= self.rest_tokens)
        if not self.cache.prefix_cache_lookup_enabled(request):
            return False
        pool, hashes = self.cache.block_pool, request.block_hashes
        last = (request.num_tokens - self.rest_tokens - 1) // pool.hash_block_size
        if not 0 <= last < len(hashes):
            return False
        return bool(pool.get_cached_block(hashes[last], self.groups))

    def begin(self, scheduler: Any) -> None:
        """Chooses what the step that is scheduled next may have of long prompts."""
        self.at = now = time.monotonic()
        whole = scheduler.scheduler_config.max_num_batched_tokens
        self.long_tokens, self.rest_tokens = whole // 4, whole // 16
        self.cache = scheduler.kv_cache_manager
        self.groups = [*range(len(scheduler.kv_cache_config.kv_cache_groups))]
        prefills = [request for request in scheduler.running if request.is_prefill_chunk]
        self.running = [request for request in prefills if self.is_long(request)]
        if not self.holders or self.holders - ids_of(scheduler.running):
            self.blocked, self.holders = None, set()
        wanted = prefills
        if len(scheduler.running) < scheduler.max_num_active_reqs:
            waiting = itertools.takewhile(
                lambda one: one.request_id != self.blocked, scheduler.waiting
            )
            wanted = prefills + [one for one in waiting if not awaits_grammar(one)]
        short = ids_of(filter(self.is_short, wanted))
        if short:
            self.short_at = now
        any_long = bool(self.running) or any(map(self.is_long, scheduler.waiting))
        self.held = any_long and bool(short - self.refused) and not self.held
        self.last, self.refused = None, set()
        self.cut = None
        chunked = scheduler.scheduler_config.enable_chunked_prefill
        if any_long and chunked:
            self.cut = self.most_of_one(scheduler.waiting, whole)
        self.has_room = not (self.held or (self.cut and self.running))
        later = self.running if self.held else self.running[1:] if self.cut else []
        hold_back(scheduler, later)
        if self.cut and not self.held:
            self.limit(scheduler, self.cut)

    def most_of_one(self, waiting: Iterable[Any], whole: int) -> int | None:
        """The tokens that a step may have of one long prompt, and of no other; None: of as many as
        it can."""
        if any(is_costly(one) and self.is_long(one) for one in self.running[:1] or waiting):
            return max(LEAST_COSTLY, min(self.rest_tokens, self.costly_tokens))
        if self.at - self.short_at < LATELY_SECONDS:
            quick = int(self.quick_seconds() * self.tokens_a_second)
            return max(self.rest_tokens, min(self.long_tokens, quick))
        # one that is not costly goes on, and those that are come after it
        return whole if any(map(is_costly, itertools.chain(self.running, waiting))) else None

    def quick_seconds(self) -> float:
        return max(QUICK_SECONDS, 2 * self.base_seconds)

    def admits(self, request: Any) -> bool:
        return self.has_room or not self.is_long(request)

    def tried(self, request: Any, ready: bool) -> None:
        if not ready or awaits_own_output(request):
            self.refused.add(request.request_id)
            return
        self.last = request.request_id
        if self.is_long(request):
            self.running.append(request)
            self.has_room = self.has_room and not self.cut

    def scheduled(self, scheduler: Any, output: Any) -> None:
        tokens = output.num_scheduled_tokens
        if self.held and self.last not in tokens:
            self.blocked, self.holders = self.last, ids_of(scheduler.running)
        if tokens:
            within = [one for one in self.running if one.request_id in tokens]
            costly = sum(tokens[one.request_id] for one in within if is_costly(one))
            self.times.begun(output, self.at, (bool(within), costly))

    def updated(self, output: Any) -> None:
        for step, (any_long, costly), seconds in self.times.ended(output, time.monotonic()):
            if costly:
                self.adapt(costly, seconds)
            elif any_long:
                self.tokens_a_second = step.total_num_scheduled_tokens / max(1e-6, seconds)
            else:
                self.base_seconds = seconds

    def adapt(self, costly: int, seconds: float) -> None:
        """A step had so many tokens of a costly prompt. One that had fewer than it might have, for
        it was the end of a prompt, tells only where those were too many."""
        quick = int(costly * self.quick_seconds() / max(1e-6, seconds))
        if quick < costly or costly >= self.costly_tokens:
            self.costly_tokens = quick

    def limit(self, scheduler: Any, tokens: int) -> None:
        """`tokens` of a prompt at most in the step that is scheduled next, or fewer where vLLM's
        own threshold is lower. Its adaptive one is raised to a request's share of the step."""
        config, most = scheduler.scheduler_config, scheduler.max_num_scheduled_tokens
        threshold = config.long_prefill_token_threshold
        adaptive = scheduler.adaptive_long_prefill_threshold
        self.own_limits = threshold, most, adaptive
        requests = sum(scheduler.get_request_counts())
        if threshold and adaptive:
            threshold = max(threshold, config.max_num_batched_tokens // max(1, requests))
        config.long_prefill_token_threshold = min(threshold or tokens, tokens)
        scheduler.adaptive_long_prefill_threshold = False
        if requests == 1:  # then the threshold does not count
            scheduler.max_num_scheduled_tokens = min(most, tokens)

    def restore(self, scheduler: Any) -> None:
        if self.own_limits is not None:
            threshold, scheduler.max_num_scheduled_tokens, adaptive = self.own_limits
            scheduler.scheduler_config.long_prefill_token_threshold = threshold
            scheduler.adaptive_long_prefill_threshold = adaptive
            self.own_limits = None


turns = PrefillTurns()


def safely(do: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
    """An error in here would end the engine, for everybody: after the first, nothing is changed."""
    return guarded(turns, "long prompts take no turns any more", do, arguments, otherwise)


@functools.cache
def register() -> None:
    take_turns(turns, safely)

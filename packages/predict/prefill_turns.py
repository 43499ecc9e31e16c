"""Part of the engine's plugin: prefills long prompts so that short ones need not wait for them.

vLLM gives a step's tokens to running requests first, then to waiting ones in order of arrival. A
long prompt takes all tokens of its steps, and vLLM looks at nothing behind it, or behind a prompt
that does not fit the KV cache. `--long-prefill-token-threshold` cuts each long prompt, but as many
as fill a step still take all of it; with `-adaptive` all go on at once, so all end when the last
one does.

Promises: a prompt of up to a quarter of a step's tokens, or with at most a sixteenth of them not in
the prefix cache, waits for no long prompt except in the steps under way (two with async
scheduling), if it and those before it fit the KV cache. If such prompts came lately, a step has
only one long prompt, in order of arrival, and only as much of it as takes QUICK_SECONDS, or twice
the time of a step without long ones if that is more: a sixteenth to a quarter of a step's tokens.
Long prompts get at least every second step, and all steps if the short ones do not fit the cache.
If all are long, or all short, nothing changes. A prompt whose log probabilities are requested costs
several times as much, depending on the vocabulary: it counts as long, and a step always has as much
of it as is quick, a sixteenth at most.
"""

import functools
import itertools
import math
import time
from collections.abc import Iterable
from typing import Any

from predict.images.turns import has_image_work
from predict.scheduling import SchedulerTurns, StepTimes, awaits_grammar, hold_back, take_turns

QUICK_SECONDS = 0.04  # for a step, which others wait for
LEAST_COSTLY = 4  # tokens in a step of a prompt whose log probabilities are requested
LATELY_SECONDS = 10.0  # short prompts this recent are followed by more


def ids_of(requests: Iterable[Any]) -> set[str]:
    return {request.request_id for request in requests}


def awaits_own_output(request: Any) -> bool:
    """Whether vLLM skips a preempted request until its last steps have ended."""
    return bool(request.num_stale_output_tokens) and not request.drop_stale_output


def is_costly(request: Any) -> bool:
    """Whether log probabilities of its prompt are requested."""
    asked = request.sampling_params
    return asked is not None and asked.prompt_logprobs is not None


class PrefillTurns(SchedulerTurns):
    """The turns of one scheduler."""

    whose = "long prompts"

    def __init__(self) -> None:
        super().__init__()
        self.long_tokens = self.rest_tokens = 0  # a longer prompt is long, until less is left
        self.held = False  # the step that is scheduled has no long prompt
        self.cut: int | None = None  # tokens of one long prompt in it, if limited
        self.has_room = True  # for a long prompt that waits
        self.tokens_a_second = 0.0  # of the last step with long ones
        self.base_seconds = 0.0  # of the last step without: mostly reading the weights
        self.costly_tokens = 10**9  # of a costly prompt that are quick, as far as is known
        self.times = StepTimes()  # marked: whether the step has long ones, tokens of costly ones
        self.running: list[Any] = []  # long ones: from before the step, and those that it admits
        self.refused: set[str] = set()  # not ready in the step before: too early for a mask
        self.last: str | None = None  # request that vLLM tried to admit to the step
        self.blocked: str | None = None  # does not fit the cache; vLLM looks at nothing behind it
        self.holders: set[str] = set()  # what ran when that was found
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
        """Whether the prefix cache has a long prompt except for a little; a new token costs more,
        the more come before it. vLLM counts that when it first admits a request. For a waiting
        request, this looks up the last block that has to be there: a block's hash covers all blocks
        before it, and vLLM evicts the end of a prompt first."""
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
        """The tokens that a step may have of one long prompt, and of no other; None: of as many
        prompts as it can."""
        if any(is_costly(one) and self.is_long(one) for one in self.running[:1] or waiting):
            return max(LEAST_COSTLY, min(self.rest_tokens, self.costly_tokens))
        if self.at - self.short_at < LATELY_SECONDS:
            quick = int(self.quick_seconds() * self.tokens_a_second)
            return max(self.rest_tokens, min(self.long_tokens, quick))
        # one that is not costly goes on, and the costly ones come after it
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
        """Learns from a step with `costly` tokens of a costly prompt. A step with fewer than it
        might have, at the end of a prompt, only shows whether those were too many."""
        quick = int(costly * self.quick_seconds() / max(1e-6, seconds))
        if quick < costly or costly >= self.costly_tokens:
            self.costly_tokens = quick


turns = PrefillTurns()


@functools.cache
def register() -> None:
    take_turns(turns)

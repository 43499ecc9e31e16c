"""A short prompt waits for no long one but the steps that are under way, and long ones for nobody
for ever."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.clocks import clock_of

prefill_turns = pytest.importorskip("predict.prefill_turns")
from tests.support.fake_scheduler import (  # noqa: E402  # needs vLLM too
    FakeScheduler,
    constrained,
    request,
    waited,
)

TOKENS = 1600  # of a step
LONG = TOKENS // 4
TOKEN_SECONDS = 0.0004  # a whole step takes 0.64 s
BASE_SECONDS = 0.01  # of a step, whatever is in it
BLOCK = 16  # tokens


class Scheduler(FakeScheduler):
    step_tokens = TOKENS

    def __init__(self, clock: Any, cache: int = 10**9) -> None:
        super().__init__(clock, prefill_turns.PrefillTurns())
        self.cache = cache
        self.seconds: Callable[[int], float]  # of a step
        self.seconds = lambda tokens: BASE_SECONDS + TOKEN_SECONDS * tokens
        self.put_off: set[str] = set()  # by turns of another kind
        self.cached: set[str] = set()  # blocks, by what stands for their hash
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=["all layers"])
        self.kv_cache_manager = SimpleNamespace(
            prefix_cache_lookup_enabled=lambda one: one.sampling_params is None,
            block_pool=SimpleNamespace(
                hash_block_size=BLOCK, get_cached_block=lambda one, groups: one in self.cached
            ),
        )

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        return self.seconds(tokens)

    def fits(self, one: Any) -> bool:
        return bool(sum(each.num_prompt_tokens for each in [one, *self.running]) <= self.cache)

    def handle(self, one: Any) -> bool:
        return super().handle(one) and one.request_id not in self.put_off

    def take(self, one: Any, most: int) -> int:
        if not one.num_computed_tokens:
            found = itertools.takewhile(lambda block: block in self.cached, one.block_hashes)
            one.num_computed_tokens = min(BLOCK * len([*found]), one.num_tokens - 1)
            one.prefill_stats = SimpleNamespace(
                num_cached_tokens=one.num_computed_tokens,
                num_computed_tokens=one.num_prompt_tokens - one.num_computed_tokens,
            )
        return super().take(one, most)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return clock_of(monkeypatch, prefill_turns)


def flood(count: int, prompt: int = 15_000) -> list[Any]:
    return [request(f"long {number}", prompt) for number in range(count)]


def ask(scheduler: Scheduler, name: str, prompt: int = 20) -> Any:
    one = request(name, prompt)
    scheduler.add(one)
    while one.first_token_at is None:
        scheduler.step()
    return one


@pytest.mark.parametrize("prompt", [LONG + 1, 3000, 15_000])
@pytest.mark.parametrize("count", [1, 8, 64])
def test_a_short_prompt_waits_for_the_step_that_is_under_way(
    clock: Any, count: int, prompt: int
) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(count, prompt))
    for number in range(10):
        scheduler.step()
        one = ask(scheduler, f"short {number}", LONG)
        assert waited(one) == pytest.approx(BASE_SECONDS + TOKEN_SECONDS * LONG, abs=0.06)


def test_while_short_ones_come_a_step_has_as_much_of_one_long_prompt_as_is_quick(
    clock: Any,
) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(8))
    scheduler.step()
    ask(scheduler, "short")
    before = len(scheduler.steps)
    scheduler.run(5)
    for tokens in scheduler.steps[before + 1 :]:
        assert len(tokens) <= 2  # one, and the end of another
        quick = prefill_turns.QUICK_SECONDS / TOKEN_SECONDS
        assert TOKENS // 16 <= max(tokens.values()) <= quick


def test_a_long_prompt_that_is_alone_is_cut_too(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(1))
    scheduler.step()
    ask(scheduler, "short")
    assert scheduler.get_request_counts() == (1, 0)
    scheduler.step()
    assert sum(scheduler.steps[-1].values()) <= prefill_turns.QUICK_SECONDS / TOKEN_SECONDS
    assert scheduler.max_num_scheduled_tokens == TOKENS


def test_long_prompts_go_on_beside_short_ones_that_never_end(clock: Any) -> None:
    scheduler, longs = Scheduler(clock), flood(3)
    scheduler.add(*longs)
    number = 0
    while any(one.first_token_at is None for one in longs):
        number += 1
        scheduler.add(request(f"short {number}"))
        scheduler.step()
        assert number < 2000
    ends = [one.first_token_at for one in longs]
    assert ends == sorted(ends)
    quick = TOKENS // 16
    assert number <= 2 * sum(one.num_prompt_tokens for one in longs) / quick + 10


@pytest.mark.parametrize("prompt", [20, LONG, LONG + 1, 15_000])
def test_what_is_all_short_or_all_long_is_left_to_vllm(clock: Any, prompt: int) -> None:
    scheduler, began = Scheduler(clock), clock.seconds
    scheduler.add(*flood(8, prompt))
    while scheduler.waiting or scheduler.running:
        scheduler.step()
    steps = -(-8 * prompt // TOKENS)
    assert len(scheduler.steps) == steps
    whole = steps * BASE_SECONDS + 8 * prompt * TOKEN_SECONDS
    assert clock.seconds - began == pytest.approx(whole)


def test_streams_go_on_in_every_step(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(request("stream", answer=10_000))
    scheduler.step()
    scheduler.add(*flood(4))
    for number in range(100):
        if number % 5 == 0:
            scheduler.add(request(f"short {number}"))
        scheduler.step()
    assert all("stream" in tokens for tokens in scheduler.steps)


def test_a_short_prompt_does_not_wait_behind_a_long_one_that_has_no_room(clock: Any) -> None:
    scheduler = Scheduler(clock, cache=16_000)
    scheduler.add(request("long answer", 10_000, answer=10**6))
    scheduler.run(10)
    scheduler.add(*flood(2))
    scheduler.step()
    assert waited(ask(scheduler, "short")) < 0.1


def test_short_prompts_that_do_not_fit_the_cache_cost_long_ones_nothing(clock: Any) -> None:
    """But for one step; when something has ended, they are tried again."""
    long, stream = request("long", 60_000), request("stream", 5000, answer=60)
    scheduler = Scheduler(clock, cache=65_010)
    scheduler.add(stream, long)
    while long.num_computed_tokens == 0:
        scheduler.step()
    shorts = [request(f"short {number}") for number in range(3)]
    scheduler.add(*shorts)
    before = len(scheduler.steps)
    for _ in range(30):
        scheduler.step()
    assert sum("long" not in tokens for tokens in scheduler.steps[before:]) == 1
    scheduler.run(prefill_turns.LATELY_SECONDS)
    assert stream in scheduler.running or shorts[0].first_token_at
    while stream in scheduler.running:
        scheduler.step()
    ended = clock.seconds
    while any(one.first_token_at is None for one in shorts):
        scheduler.step()
    assert long in scheduler.running
    assert clock.seconds - ended < 0.5


@pytest.mark.parametrize("came", [0, 3])
def test_a_short_prompt_with_a_constraint_does_not_wait_for_long_ones(
    clock: Any, came: int
) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(8))
    scheduler.step()
    one = constrained("short", ready=not came)
    scheduler.add(one)
    for _ in range(came):
        scheduler.step()
    one.structured_output_request.grammar = "grammar"
    ready = clock.seconds
    while one.first_token_at is None:
        scheduler.step()
    assert one.first_token_at - ready < 0.1


def test_nothing_is_held_for_a_grammar_that_is_not_ready(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(8), constrained("short", ready=False))
    scheduler.run(5)
    assert all(sum(tokens.values()) == TOKENS for tokens in scheduler.steps)


def test_steps_are_not_held_for_one_that_is_put_off_in_each(clock: Any) -> None:
    """Its mask is slow, and it is not its turn; it is looked at in each step, which is cut."""
    scheduler = Scheduler(clock)
    scheduler.add(*flood(8))
    scheduler.step()
    one, before = constrained("short"), len(scheduler.steps)
    scheduler.put_off = {one.request_id}
    scheduler.add(one)
    scheduler.run(30)
    steps = scheduler.steps[before:]
    assert sum(not tokens for tokens in steps) == 1
    assert max(sum(tokens.values()) for tokens in steps) <= LONG
    scheduler.put_off, came = set(), clock.seconds
    while one.first_token_at is None:
        scheduler.step()
    assert one.first_token_at - came < 0.1


def test_a_cut_does_not_go_below_what_a_step_computes_while_weights_are_read(clock: Any) -> None:
    """An L4: 48 ms, and 8,344 tokens a second, whichever is longer."""
    scheduler = Scheduler(clock)
    scheduler.seconds = lambda tokens: max(0.048, tokens / 8344)
    scheduler.add(*flood(8))
    for number in range(5):
        ask(scheduler, f"short {number}")
    before, began = len(scheduler.steps), clock.seconds
    scheduler.run(5)
    tokens = sum(sum(step.values()) for step in scheduler.steps[before:])
    assert tokens / (clock.seconds - began) > 0.9 * 8344
    assert max(max(step.values()) for step in scheduler.steps[before:]) <= LONG


def test_when_no_short_one_came_for_a_while_long_ones_have_whole_steps_again(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(20))
    ask(scheduler, "short")
    scheduler.run(prefill_turns.LATELY_SECONDS + 1)
    scheduler.step()
    assert sum(scheduler.steps[-1].values()) == TOKENS


def test_prompts_that_may_not_be_cut_are_not(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.scheduler_config.enable_chunked_prefill = False
    scheduler.add(*flood(8, TOKENS))
    scheduler.step()
    assert waited(ask(scheduler, "short")) < 2 * BASE_SECONDS
    scheduler.step()
    assert [*scheduler.steps[-1].values()] == [TOKENS]


def test_limits_of_the_scheduler_s_own_stay(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.scheduler_config.long_prefill_token_threshold = 64
    scheduler.add(*flood(4))
    for number in range(10):
        scheduler.add(request(f"short {number}"))
        scheduler.step()
        assert max(scheduler.steps[-1].values()) <= 64
        assert scheduler.scheduler_config.long_prefill_token_threshold == 64
        assert scheduler.max_num_scheduled_tokens == TOKENS


def chat(scheduler: Scheduler, name: str, cached: int, new: int) -> Any:
    """One of which `cached` tokens are in the prefix cache."""
    blocks = [f"{name} {number}" for number in range((cached + new) // BLOCK)]
    scheduler.cached |= {*blocks[: cached // BLOCK]}
    return request(name, cached + new, block_hashes=blocks)


@pytest.mark.parametrize("new", [50, TOKENS // 16 - BLOCK])
def test_a_long_chat_waits_as_long_as_what_is_not_cached_of_it(clock: Any, new: int) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(8))
    for number in range(10):
        scheduler.step()
        one = chat(scheduler, f"chat {number}", 12_000, new)
        scheduler.add(one)
        while one.first_token_at is None:
            scheduler.step()
        assert waited(one) < BASE_SECONDS + TOKEN_SECONDS * LONG + 0.1


def test_a_long_chat_with_much_that_is_new_is_a_long_prompt(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(4))
    scheduler.step()
    one = chat(scheduler, "chat", 12_000, 2 * LONG)
    scheduler.add(one)
    for number in range(10):
        ask(scheduler, f"short {number}")
    assert one.first_token_at is None


def test_the_rest_of_a_cached_chat_goes_on_in_every_step(clock: Any) -> None:
    """It is admitted where few of the step's tokens are left."""
    scheduler = Scheduler(clock)
    scheduler.add(*flood(2))
    ask(scheduler, "short")
    one = chat(scheduler, "chat", 12_000, TOKENS // 16 - BLOCK)
    scheduler.add(one)
    before = len(scheduler.steps)
    while one.first_token_at is None:
        scheduler.step()
    assert len([step for step in scheduler.steps[before:] if "chat" not in step]) <= 1


def test_one_that_was_preempted_and_awaits_its_output_holds_nobody_up(clock: Any) -> None:
    """vLLM passes over it, and looks at who is behind it."""
    scheduler = Scheduler(clock)
    scheduler.add(*flood(2))
    ask(scheduler, "short")
    resumed = request("resumed", num_stale_output_tokens=1)
    scheduler.add(resumed)
    for _ in range(4):
        scheduler.step()
    assert scheduler.turns.blocked is None
    assert waited(ask(scheduler, "behind it")) < 0.2


@pytest.mark.parametrize("tokens", [1, TOKENS // 16, LONG])
def test_prompts_whose_log_probabilities_are_asked_for_are_long_ones(
    clock: Any, tokens: int
) -> None:
    """A token of theirs takes five times as long; nobody was there before the first of them."""
    scheduler = Scheduler(clock)
    scheduler.seconds = lambda tokens: BASE_SECONDS + 5 * TOKEN_SECONDS * tokens
    asked = SimpleNamespace(prompt_logprobs=0)
    scheduler.add(*(request(f"asked {n}", tokens, sampling_params=asked) for n in range(32)))
    scheduler.step()
    for number in range(5):
        least = scheduler.seconds(TOKENS // 16)  # a step at the lowest cut
        assert waited(ask(scheduler, f"short {number}")) < least + scheduler.seconds(20)


COSTLY_SECONDS = 0.002  # of a token whose log probabilities are computed, of a large vocabulary


class Costly(Scheduler):
    """Where a token of some prompts takes longer."""

    token_seconds = COSTLY_SECONDS

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.taken: dict[str, int] = {}  # by a request, the last time

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        costly = sum(self.taken[one.request_id] for one in working if one.sampling_params)
        return self.seconds(tokens - costly) + self.token_seconds * costly

    def take(self, one: Any, most: int) -> int:
        self.taken[one.request_id] = super().take(one, most)
        return self.taken[one.request_id]


def asked(count: int, tokens: int) -> list[Any]:
    params = SimpleNamespace(prompt_logprobs=0)
    return [request(f"asked {n}", tokens, sampling_params=params) for n in range(count)]


def most_of(scheduler: Scheduler, kind: str, since: int = 0) -> int:
    steps = scheduler.steps[since:]
    return max(n for step in steps for name, n in step.items() if name.startswith(kind))


@pytest.mark.parametrize("tokens", [30, 1100])
def test_a_step_has_as_much_as_is_quick_of_what_takes_long_by_its_vocabulary(
    clock: Any, tokens: int
) -> None:
    scheduler = Costly(clock)
    scheduler.add(*asked(40, tokens))
    scheduler.step()  # the first tells how long it takes
    quick = prefill_turns.QUICK_SECONDS
    for number in range(10):
        scheduler.step()
        assert waited(ask(scheduler, f"short {number}", 5)) < quick + scheduler.seconds(5)
    least = (quick - BASE_SECONDS) / COSTLY_SECONDS
    assert most_of(scheduler, "asked", since=1) >= 0.9 * min(least, tokens)


def test_what_is_quick_anyway_has_its_sixteenth_and_no_less(clock: Any) -> None:
    scheduler = Costly(clock)
    scheduler.token_seconds = TOKEN_SECONDS / 2
    scheduler.add(*asked(3, 1010))
    while scheduler.waiting or scheduler.running:
        scheduler.step()
    assert len(scheduler.steps) == 3 * -(-1010 // (TOKENS // 16))


def test_a_step_that_other_work_made_slow_is_forgotten(clock: Any) -> None:
    scheduler = Costly(clock)
    scheduler.token_seconds = TOKEN_SECONDS / 2
    scheduler.add(*asked(1, 5000))
    scheduler.token_seconds = 10 * COSTLY_SECONDS
    scheduler.step()
    scheduler.token_seconds = TOKEN_SECONDS / 2
    scheduler.step()
    assert most_of(scheduler, "asked", since=1) == prefill_turns.LEAST_COSTLY
    scheduler.run(2)
    assert most_of(scheduler, "asked", since=1) == TOKENS // 16


def test_a_long_prompt_is_not_cut_as_those_are_that_come_behind_it(clock: Any) -> None:
    scheduler = Costly(clock)
    scheduler.add(*flood(1))
    scheduler.step()
    scheduler.add(*asked(3, 1000))
    scheduler.step()
    assert scheduler.steps[-1] == {"long 0": TOKENS}
    ask(scheduler, "short")
    scheduler.step()
    quick = prefill_turns.QUICK_SECONDS / TOKEN_SECONDS
    assert [*scheduler.steps[-1]] == ["long 0"]
    assert TOKENS // 16 <= scheduler.steps[-1]["long 0"] <= quick


def test_vllm_s_adaptive_threshold_undoes_no_cut(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.scheduler_config.long_prefill_token_threshold = 25
    scheduler.adaptive_long_prefill_threshold = True
    scheduler.add(*flood(2))
    scheduler.step()
    for number in range(5):
        one = ask(scheduler, f"short {number}")
        assert waited(one) < 0.1
        scheduler.step()
        assert max(scheduler.steps[-1].values()) <= LONG
        assert scheduler.adaptive_long_prefill_threshold
        assert scheduler.scheduler_config.long_prefill_token_threshold == 25


def test_vllm_s_adaptive_threshold_counts_where_it_is_lower(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.scheduler_config.long_prefill_token_threshold = 25
    scheduler.adaptive_long_prefill_threshold = True
    scheduler.add(*flood(50))
    ask(scheduler, "short")
    scheduler.step()
    assert max(scheduler.steps[-1].values()) <= TOKENS // 50


def test_after_an_error_nothing_is_changed(clock: Any) -> None:
    broken = prefill_turns.PrefillTurns()
    scheduler = Scheduler(clock)
    scheduler.add(*flood(2), request("short"))
    scheduler.running = [SimpleNamespace()]
    broken.safely(broken.begin, scheduler)
    broken.restore(scheduler)
    assert broken.failed
    assert broken.safely(broken.admits, request("long", 15_000), otherwise=True)
    assert scheduler.scheduler_config.long_prefill_token_threshold == 0

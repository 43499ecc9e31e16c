"""A short prompt waits for no long one but the steps that are under way, and long ones for nobody
for ever."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

prefill_turns = pytest.importorskip("predict.prefill_turns")
from predict.constraints.turns import GRAMMAR  # noqa: E402  # needs vLLM too

TOKENS = 1600  # of a step
LONG = TOKENS // 4
TOKEN_SECONDS = 0.0004  # a whole step takes 0.64 s
BASE_SECONDS = 0.01  # of a step, whatever is in it


class Request:
    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def request(name: str, prompt: int = 20, answer: int = 1) -> Any:
    return Request(
        request_id=name,
        status=None,
        mm_features=[],
        num_prompt_tokens=prompt,
        num_tokens=prompt,
        answer=answer,
        num_computed_tokens=0,
        is_prefill_chunk=False,
        next_decode_eligible_step=0,
        first_token_at=None,
        came_at=None,
    )


def constrained(name: str, ready: bool = True) -> Any:
    one = request(name)
    one.status = GRAMMAR
    one.structured_output_request = SimpleNamespace(grammar="grammar" if ready else None)
    return one


class Scheduler:
    """As much of vLLM's as is looked at: what runs goes first, then what waits, in order, while a
    step has tokens left; nobody behind who does not fit the cache is looked at. Who waits for a
    grammar, or was put off, is in `deferred_waiting` until it is admitted. And a clock."""

    max_num_active_reqs = 64

    def __init__(self, clock: Any, cache: int = 10**9) -> None:
        self.clock, self.cache = clock, cache
        self.seconds: Callable[[int], float]  # of a step
        self.seconds = lambda tokens: BASE_SECONDS + TOKEN_SECONDS * tokens
        self.put_off: set[str] = set()  # by turns of another kind
        self.turns = prefill_turns.PrefillTurns()
        self.scheduler_config = SimpleNamespace(
            max_num_batched_tokens=TOKENS,
            long_prefill_token_threshold=0,
            enable_chunked_prefill=True,
        )
        self.max_num_scheduled_tokens = TOKENS
        self.running: list[Any] = []
        self.waiting: list[Any] = []
        self.deferred_waiting: set[Any] = set()
        self.current_step = 0
        self.steps: list[dict[str, int]] = []  # tokens by request

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)

    def add(self, *requests: Any) -> None:
        for one in requests:
            one.came_at = self.clock.seconds
            self.waiting.append(one)
            if one.status == GRAMMAR:
                self.deferred_waiting.add(one)

    def handle(self, one: Any) -> bool:
        if one.status == GRAMMAR and one.structured_output_request.grammar is None:
            return False
        return one.request_id not in self.put_off

    def looks_at(self, one: Any) -> bool:
        """As what register() puts in the place of vLLM's."""
        if not self.turns.admits(one):
            return False
        ready = self.handle(one)
        self.turns.tried(one, ready)
        return ready

    def step(self) -> None:
        self.turns.begin(self)
        self.current_step += 1
        left, tokens, skipped = self.max_num_scheduled_tokens, {}, []
        several = sum(self.get_request_counts()) > 1
        most = self.scheduler_config.long_prefill_token_threshold if several else 0
        for one in self.running:
            if self.current_step >= one.next_decode_eligible_step and left:
                tokens[one.request_id] = self.take(one, min(left, most or left))
                left -= tokens[one.request_id]
        while self.waiting and left and len(self.running) < self.max_num_active_reqs:
            one = self.waiting.pop(0)
            if not self.looks_at(one):
                skipped.append(one)
                self.deferred_waiting.add(one)
                continue
            if sum(each.num_prompt_tokens for each in [one, *self.running]) > self.cache:
                self.waiting.insert(0, one)
                break
            self.deferred_waiting.discard(one)
            self.running.append(one)
            tokens[one.request_id] = self.take(one, min(left, most or left))
            left -= tokens[one.request_id]
        self.waiting = skipped + self.waiting
        self.turns.restore(self)
        count = sum(tokens.values())
        output = SimpleNamespace(num_scheduled_tokens=tokens, total_num_scheduled_tokens=count)
        self.turns.scheduled(self, output)
        self.clock.seconds += self.seconds(count) if count else 0.001
        self.turns.updated(output)
        self.steps.append(tokens)
        for one in [one for one in self.running if one.request_id in tokens]:
            one.is_prefill_chunk = one.num_computed_tokens < one.num_prompt_tokens
            if one.is_prefill_chunk:
                continue
            if one.first_token_at is None:
                one.first_token_at = self.clock.seconds
            one.num_tokens = one.num_computed_tokens + 1
            if one.num_tokens >= one.num_prompt_tokens + one.answer:
                self.running.remove(one)

    def take(self, one: Any, most: int) -> int:
        tokens = min(most, one.num_tokens - one.num_computed_tokens)
        one.num_computed_tokens += tokens
        return int(tokens)

    def run(self, seconds: float) -> None:
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.step()


def waited(one: Any) -> float:
    return float(one.first_token_at - one.came_at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(prefill_turns, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


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


def test_after_an_error_nothing_is_changed(monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:
    broken = prefill_turns.PrefillTurns()
    monkeypatch.setattr(prefill_turns, "turns", broken)
    scheduler = Scheduler(clock)
    scheduler.add(*flood(2), request("short"))
    scheduler.running = [SimpleNamespace()]
    prefill_turns.safely(broken.begin, scheduler)
    broken.restore(scheduler)
    assert broken.failed
    assert prefill_turns.safely(broken.admits, request("long", 15_000), otherwise=True)
    assert scheduler.scheduler_config.long_prefill_token_threshold == 0

"""The parts of vLLM's scheduler that turns use: running requests first, then waiting ones, in
order, while a step has tokens left; it stops at a request that does not fit the cache. A request
that waits for a grammar, or was deferred, is in `deferred_waiting` until it is admitted. And a
clock.

Needs vLLM, as the code under test does."""

from types import SimpleNamespace
from typing import Any

from predict.scheduling import GRAMMAR


class Request:
    """Compared by identity, like vLLM's."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def request(name: str, prompt: int = 20, answer: int = 1, **fields: Any) -> Any:
    """A request with `prompt` tokens and `answer` more."""
    values: dict[str, Any] = {
        "request_id": name,
        "status": None,
        "mm_features": [],
        "num_prompt_tokens": prompt,
        "num_tokens": prompt,
        "answer": answer,
        "num_computed_tokens": 0,
        "num_preemptions": 0,
        "num_stale_output_tokens": 0,
        "drop_stale_output": False,
        "prefill_stats": None,
        "block_hashes": [],
        "sampling_params": None,
        "is_prefill_chunk": False,
        "next_decode_eligible_step": 0,
        "first_token_at": None,
        "came_at": None,
    }
    return Request(**(values | fields))


def constrained(name: str, ready: bool = True) -> Any:
    grammar = "grammar" if ready else None
    constraint = SimpleNamespace(grammar=grammar)
    return request(name, status=GRAMMAR, structured_output_request=constraint)


def waited(one: Any) -> float:
    return float(one.first_token_at - one.came_at)


class FakeScheduler:
    step_tokens: int
    max_num_active_reqs = 64
    encodes = True  # the images of a step; otherwise a cache has them

    def __init__(self, clock: Any, turns: Any) -> None:
        self.clock, self.turns = clock, turns
        self.running: list[Any] = []
        self.waiting: list[Any] = []
        self.deferred_waiting: set[Any] = set()
        self.current_step = 0
        self.steps: list[dict[str, int]] = []  # tokens by request
        self.scheduler_config = SimpleNamespace(
            max_num_batched_tokens=self.step_tokens,
            long_prefill_token_threshold=0,
            enable_chunked_prefill=True,
        )
        self.adaptive_long_prefill_threshold = False
        self.max_num_scheduled_tokens = self.step_tokens

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        """The seconds of a step with tokens of these requests."""
        raise NotImplementedError

    def budget(self) -> tuple[int, int]:
        """The tokens of the step, and the maximum of one request in it."""
        several, most = sum(self.get_request_counts()), self.max_num_scheduled_tokens
        cut = self.scheduler_config.long_prefill_token_threshold if several > 1 else 0
        if cut and self.adaptive_long_prefill_threshold:
            cut = max(cut, self.step_tokens // several)
        return most, cut or most

    def fits(self, one: Any) -> bool:
        return True

    def handle(self, one: Any) -> bool:
        return one.status != GRAMMAR or one.structured_output_request.grammar is not None

    def add(self, *requests: Any) -> None:
        for one in requests:
            one.came_at = self.clock.seconds
            self.waiting.append(one)
            if one.status == GRAMMAR:
                self.deferred_waiting.add(one)

    def looks_at(self, one: Any) -> bool:
        """The check that scheduling.py substitutes for vLLM's, and vLLM's next steps."""
        if not self.turns.admits(one):
            return False
        ready = self.handle(one)
        self.turns.tried(one, ready)
        return ready and not one.num_stale_output_tokens

    def step(self) -> None:
        self.turns.begin(self)
        self.current_step += 1
        (left, most), tokens, new, skipped = self.budget(), {}, [], []
        for one in self.running:
            if self.current_step < one.next_decode_eligible_step or not left:
                continue
            if taken := self.take(one, min(left, most)):
                tokens[one.request_id] = taken
                left -= taken
        while self.waiting and left and len(self.running) < self.max_num_active_reqs:
            one = self.waiting.pop(0)
            if not self.looks_at(one):
                skipped.append(one)
                self.deferred_waiting.add(one)
                continue
            if not self.fits(one):
                self.waiting.insert(0, one)
                break
            self.deferred_waiting.discard(one)
            self.running.append(one)
            new.append(one)
            tokens[one.request_id] = self.take(one, min(left, most))
            left -= tokens[one.request_id]
        self.waiting = skipped + self.waiting
        self.turns.restore(self)
        working = [one for one in self.running if one.request_id in tokens]
        count = sum(tokens.values())
        output = SimpleNamespace(
            num_scheduled_tokens=tokens,
            total_num_scheduled_tokens=count,
            scheduled_new_reqs=new,
            scheduled_encoder_inputs=self.encoded(working, tokens) if self.encodes else {},
        )
        self.turns.scheduled(self, output)
        self.clock.seconds += self.seconds_of(working, count) if count else 0.001
        self.turns.updated(output)
        self.steps.append(tokens)
        for one in working:
            self.end(one)

    def encoded(self, working: list[Any], tokens: dict[str, int]) -> dict[str, list[int]]:
        """The images, by number, of which the step has the first token."""
        return {
            one.request_id: [
                number
                for number, feature in enumerate(one.mm_features)
                if 0
                < one.num_computed_tokens - feature.mm_position.offset
                <= tokens[one.request_id]
            ]
            for one in working
        }

    def take(self, one: Any, most: int) -> int:
        tokens = min(most, one.num_tokens - one.num_computed_tokens)
        one.num_computed_tokens += tokens
        return int(tokens)

    def end(self, one: Any) -> None:
        one.is_prefill_chunk = one.num_computed_tokens < one.num_prompt_tokens
        if one.is_prefill_chunk:
            return
        if one.first_token_at is None:
            one.first_token_at = self.clock.seconds
        one.num_tokens = one.num_computed_tokens + 1
        if one.num_tokens >= one.num_prompt_tokens + one.answer:
            self.running.remove(one)

    def run(self, seconds: float) -> None:
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.step()

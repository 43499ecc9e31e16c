"""Images and text take turns in the engine: text waits for one step with images, images for ever
for nobody."""

from types import SimpleNamespace
from typing import Any

import pytest

turns = pytest.importorskip("predict.images.turns")
from predict.constraints.turns import GRAMMAR  # noqa: E402  # needs vLLM too

TOKENS = 100  # of a step
TEXT, IMAGE = 0.02, 1.5  # seconds of a step without and with images, on a slow machine
QUICK_IMAGE = 0.08


class Request:
    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def request(name: str, images: int = 0, prompt: int = 5, answer: int = 1) -> Any:
    features = [
        SimpleNamespace(mm_position=SimpleNamespace(offset=number * TOKENS, length=TOKENS))
        for number in range(images)
    ]
    return Request(
        request_id=name,
        status=None,
        mm_features=features,
        prompt=images * TOKENS + prompt,
        answer=answer,
        num_computed_tokens=0,
        is_prefill_chunk=False,
        next_decode_eligible_step=0,
        first_token_at=None,
        came_at=None,
    )


class Scheduler:
    """As much of vLLM's as is looked at: what runs goes first, then what waits, in order, while a
    step has tokens left. Who waits for a grammar, or was put off, is in `deferred_waiting` until it
    is admitted. And a clock."""

    max_num_encoder_input_tokens = TOKENS

    def __init__(self, clock: Any, image: float = IMAGE, most: int = 256) -> None:
        self.clock, self.image, self.most = clock, image, most
        self.turns = turns.ImageTurns()
        self.running: list[Any] = []
        self.waiting: list[Any] = []
        self.deferred_waiting: set[Any] = set()
        self.current_step = 0
        self.image_steps: list[float] = []  # when each ended

    def add(self, *requests: Any) -> None:
        for one in requests:
            one.came_at = self.clock.seconds
            self.waiting.append(one)
            if one.status == GRAMMAR:
                self.deferred_waiting.add(one)

    def handle(self, one: Any) -> bool:
        return one.status != GRAMMAR or one.structured_output_request.grammar is not None

    def step(self) -> None:
        self.turns.begin(self)
        self.current_step += 1
        left, tokens, new, skipped = TOKENS, {}, [], []
        for one in self.running:
            if self.current_step >= one.next_decode_eligible_step and left:
                tokens[one.request_id] = self.take(one, left)
                left -= tokens[one.request_id]
        while self.waiting and left and len(self.running) < self.most:
            one = self.waiting.pop(0)
            if not (self.turns.admits(one) and self.handle(one)):
                skipped.append(one)
                self.deferred_waiting.add(one)
                continue
            self.deferred_waiting.discard(one)
            self.running.append(one)
            new.append(one)
            tokens[one.request_id] = self.take(one, left)
            left -= tokens[one.request_id]
        self.waiting = skipped + self.waiting
        images = any(one.request_id in tokens and one.works for one in self.running)
        output = SimpleNamespace(
            num_scheduled_tokens=tokens,
            total_num_scheduled_tokens=sum(tokens.values()),
            scheduled_new_reqs=new,
        )
        self.turns.scheduled(self, output)
        self.clock.seconds += self.image if images else TEXT if tokens else 0.001
        if images:
            self.image_steps.append(self.clock.seconds)
        self.turns.updated(output)
        for one in [one for one in self.running if one.request_id in tokens]:
            one.is_prefill_chunk = one.num_computed_tokens < one.prompt
            if one.is_prefill_chunk:
                continue
            if one.first_token_at is None:
                one.first_token_at = self.clock.seconds
            if one.num_computed_tokens >= one.prompt + one.answer - 1:
                self.running.remove(one)

    def take(self, one: Any, left: int) -> int:
        one.works = turns.has_image_work(one)
        tokens = min(left, max(1, one.prompt - one.num_computed_tokens))
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
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def flood(count: int, images: int = 5) -> list[Any]:
    return [request(f"image {number}", images) for number in range(count)]


@pytest.mark.parametrize("image", [IMAGE, QUICK_IMAGE])
def test_text_waits_for_the_step_that_is_under_way_and_no_other(clock: Any, image: float) -> None:
    scheduler = Scheduler(clock, image)
    scheduler.add(*flood(20))
    for number in range(10):
        scheduler.step()
        text = request(f"text {number}")
        scheduler.add(text)
        before = len(scheduler.image_steps)
        while text.first_token_at is None:
            scheduler.step()
        assert len(scheduler.image_steps) == before
        assert waited(text) == pytest.approx(TEXT)


@pytest.mark.parametrize("ready", [True, False])
def test_text_with_a_constraint_counts_once_its_grammar_is_ready(clock: Any, ready: bool) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(*flood(20))
    scheduler.step()
    text, before = request("text"), len(scheduler.image_steps)
    text.status = GRAMMAR
    text.structured_output_request = SimpleNamespace(grammar="grammar" if ready else None)
    scheduler.add(text)
    scheduler.step()
    assert (text.first_token_at is not None) == ready
    assert (len(scheduler.image_steps) == before) == ready


@pytest.mark.parametrize("pause", [0.2, 1.1])
def test_most_text_finds_the_engine_free_where_a_step_with_images_is_slow(
    clock: Any, pause: float
) -> None:
    """Also text that comes once a second."""
    scheduler, waits = Scheduler(clock), []
    scheduler.add(*flood(40))
    scheduler.step()
    for number in range(60):
        text = request(f"text {number}")
        scheduler.add(text)
        while text.first_token_at is None:
            scheduler.step()
        waits.append(waited(text))
        scheduler.run(pause)
    waits.sort()
    assert waits[len(waits) // 2] == pytest.approx(TEXT)
    assert waits[-1] <= IMAGE + TEXT


def test_images_have_their_share_beside_text_that_never_ends(clock: Any) -> None:
    scheduler, began = Scheduler(clock), clock.seconds
    scheduler.add(*flood(200))
    for number in range(3000):
        scheduler.add(request(f"text {number}"))
        scheduler.step()
    share = len(scheduler.image_steps) * IMAGE / (clock.seconds - began)
    assert turns.SHARE - 0.05 < share < turns.SHARE + 0.05


@pytest.mark.parametrize("image", [IMAGE, QUICK_IMAGE])
def test_without_text_images_wait_for_nothing(clock: Any, image: float) -> None:
    scheduler, began = Scheduler(clock, image), clock.seconds
    images = flood(8, images=1)
    scheduler.add(*images)
    while scheduler.waiting or scheduler.running:
        scheduler.step()
    steps = len(scheduler.image_steps)
    assert clock.seconds - began <= steps * image + 10 * TEXT
    assert [one.first_token_at for one in images] == sorted(one.first_token_at for one in images)


@pytest.mark.parametrize("image", [IMAGE, QUICK_IMAGE])
def test_images_beside_streams_that_have_begun_wait_for_nothing(clock: Any, image: float) -> None:
    scheduler = Scheduler(clock, image)
    stream = request("text", answer=10_000)
    scheduler.add(stream)
    scheduler.step()
    scheduler.run(turns.TEXT_SECONDS)
    scheduler.add(*flood(8))
    scheduler.run(40 * image)
    assert len(scheduler.image_steps) >= 40


def test_quick_images_leave_no_time_free_for_text_that_may_come(clock: Any) -> None:
    scheduler, began = Scheduler(clock, QUICK_IMAGE), clock.seconds
    scheduler.add(*flood(20))
    for number in range(10):
        scheduler.add(request(f"text {number}"))
        scheduler.step()
        scheduler.step()
    assert len(scheduler.image_steps) == 10
    assert clock.seconds - began == pytest.approx(10 * (QUICK_IMAGE + TEXT))


def test_images_wait_for_no_text_that_was_there_once(clock: Any) -> None:
    scheduler = Scheduler(clock)
    scheduler.add(request("text"), *flood(1, images=1))
    scheduler.run(10)
    assert len(scheduler.image_steps) in (1, 2)
    late = request("late", images=1)
    scheduler.run(turns.TEXT_SECONDS)
    scheduler.add(late)
    scheduler.step()
    assert len(scheduler.image_steps) in (2, 3)


def test_text_that_gets_no_slot_does_not_stop_images(clock: Any) -> None:
    """The images that run have all slots, and only they can free one."""
    scheduler = Scheduler(clock, most=2)
    images, text = flood(2), request("text")
    scheduler.add(*images)
    scheduler.step()
    scheduler.step()
    scheduler.add(text)
    scheduler.run(120)
    assert text.first_token_at is not None
    assert all(one.first_token_at is not None for one in images)


def test_a_step_of_a_host_that_was_paused_is_not_waited_for_as_long(clock: Any) -> None:
    scheduler = Scheduler(clock, image=600.0)
    scheduler.add(*flood(2))
    scheduler.step()
    scheduler.image = IMAGE
    scheduler.add(request("text", answer=10**6))
    ended = clock.seconds
    scheduler.run(turns.MOST_SECONDS + 2 * IMAGE)
    assert scheduler.image_steps[1] - ended < turns.MOST_SECONDS + IMAGE + TEXT


def test_a_text_model_is_not_looked_at(clock: Any) -> None:
    waits = turns.ImageTurns()
    waits.begin(SimpleNamespace(max_num_encoder_input_tokens=0))  # has no other attribute
    assert waits.admits(request("text"))


def test_after_an_error_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "turns", turns.ImageTurns())

    def fail(*_: Any) -> None:
        raise AttributeError("gone")

    turns.safely(fail)
    assert turns.turns.failed
    turns.turns.held = True
    assert turns.safely(turns.turns.admits, request("image", 1), otherwise=True)

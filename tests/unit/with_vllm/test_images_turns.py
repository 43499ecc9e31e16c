"""Images and text take turns in the engine: text waits for one step with images, images for ever
for nobody."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.clocks import clock_of

turns = pytest.importorskip("predict.images.turns")
from tests.support import fake_scheduler  # noqa: E402  # needs vLLM too
from tests.support.fake_scheduler import FakeScheduler, constrained, waited  # noqa: E402

TOKENS = 100  # of a step
TEXT, IMAGE = 0.02, 1.5  # seconds of a step without and with images, on a slow machine
QUICK_IMAGE = 0.08


def request(name: str, images: int = 0, answer: int = 1, prompt: int = 5) -> Any:
    features = [
        SimpleNamespace(mm_position=SimpleNamespace(offset=number * TOKENS, length=TOKENS))
        for number in range(images)
    ]
    return fake_scheduler.request(name, images * TOKENS + prompt, answer, mm_features=features)


class Scheduler(FakeScheduler):
    step_tokens = max_num_encoder_input_tokens = TOKENS

    def __init__(self, clock: Any, image: float = IMAGE, most: int = 256) -> None:
        super().__init__(clock, turns.ImageTurns())
        self.image, self.max_num_active_reqs = image, most
        self.image_steps: list[float] = []  # when each ended

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        if not any(one.works for one in working):
            return TEXT
        self.image_steps.append(self.clock.seconds + self.image)
        return self.image

    def take(self, one: Any, most: int) -> int:
        one.works = turns.has_image_work(one)
        return super().take(one, most)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    return clock_of(monkeypatch, turns)


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
    text, before = constrained("text", ready), len(scheduler.image_steps)
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


class SmallImages(Scheduler):
    """Of which each takes 0.002 s beside the time of a step."""

    step_tokens = max_num_encoder_input_tokens = 100 * TOKENS
    base, a_token = 0.004, 0.002 / TOKENS

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        of_images = sum(one.num_prompt_tokens for one in working if one.works)
        if of_images:
            self.image_steps.append(self.clock.seconds)
        return self.base + float(of_images) * self.a_token


class LargeImages(Scheduler):
    """Each of as many tokens as a step may have, which take a second and a half."""

    def seconds_of(self, working: list[Any], tokens: int) -> float:
        super().seconds_of(working, tokens)
        return max(TEXT, tokens / TOKENS * IMAGE)


def lasted(scheduler: Any, steps: int, text: bool = False) -> list[float]:
    """The seconds of each of these steps that worked on images; `text`: more comes before each."""
    found = []
    for number in range(steps):
        if text:
            scheduler.add(request(f"more {number}"))
        began, before = scheduler.clock.seconds, len(scheduler.image_steps)
        scheduler.step()
        if len(scheduler.image_steps) > before:
            found.append(scheduler.clock.seconds - began)
    return found


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("text", [True, False])
def test_a_step_has_only_a_part_of_large_images_where_text_comes(
    clock: Any, text: bool, count: int
) -> None:
    scheduler = LargeImages(clock)
    images = flood(count)
    scheduler.add(*images)  # all are admitted together: no step has shown what they take
    first = lasted(scheduler, 2)
    assert first[0] == pytest.approx(IMAGE)
    later = lasted(scheduler, 300, text)
    if text:
        sixteenth = TOKENS // 16 * IMAGE / TOKENS
        assert len(later) > 10
        assert max(later) <= turns.PART_SECONDS + sixteenth
        assert max(later) > turns.PART_SECONDS - sixteenth
    elif count > 1:
        assert max(later) == pytest.approx(IMAGE)
    scheduler.run(count * 10 * IMAGE)
    assert all(one.first_token_at is not None for one in images)
    assert scheduler.scheduler_config.long_prefill_token_threshold == 0
    assert scheduler.max_num_scheduled_tokens == TOKENS


class Crowded(LargeImages):
    """The first image does not fit the encoder's cache before the second has been computed."""

    def take(self, one: Any, most: int) -> int:
        images = [each for each in self.running if each.mm_features]
        return 0 if len(images) > 1 and one is images[0] else super().take(one, most)


def test_an_image_that_waits_for_another_s_room_does_not_hold_that_one_up(clock: Any) -> None:
    scheduler = Crowded(clock)
    images = flood(2)
    for one in images:
        one.is_prefill_chunk, one.came_at = True, clock.seconds
    scheduler.running += images
    for number in range(3000):
        scheduler.add(request(f"text {number}"))
        while len(scheduler.waiting) + len(scheduler.running) > len(images):
            scheduler.step()
    assert all(one.first_token_at is not None for one in images)


def test_images_that_wait_for_a_slot_divide_no_text(clock: Any) -> None:
    scheduler = LargeImages(clock, most=1)
    text = request("text", prompt=TOKENS - 1)
    text.is_prefill_chunk, text.came_at = True, clock.seconds
    scheduler.running.append(text)
    scheduler.add(*flood(2))
    scheduler.turns.spent = IMAGE  # it is the images' turn
    scheduler.step()
    assert text.first_token_at is not None


def test_images_that_vllm_may_not_divide_are_whole(clock: Any) -> None:
    scheduler = LargeImages(clock)
    scheduler.scheduler_config.enable_chunked_prefill = False
    scheduler.add(request("text"), *flood(2))
    assert max(lasted(scheduler, 20)) >= IMAGE


@pytest.mark.parametrize("base", [0.004, 0.05])
@pytest.mark.parametrize("text", [True, False])
def test_a_step_has_as_many_small_images_as_are_quick_where_text_comes(
    clock: Any, text: bool, base: float
) -> None:
    scheduler = SmallImages(clock)
    scheduler.base = base
    quick = max(turns.LEAST_SECONDS, turns.BESIDE * base)
    scheduler.add(*flood(1000, images=1))
    found = lasted(scheduler, 200, text)
    if not text:
        assert found[0] > 2 * quick
        return
    assert len(found) > 3
    assert base + 0.005 < found[-1] < 1.2 * quick  # several images


def test_a_slow_step_without_images_lets_none_with_images_be_slow(clock: Any) -> None:
    scheduler = SmallImages(clock)
    scheduler.add(*flood(1000, images=1))
    scheduler.step()
    scheduler.base = 1.0  # of text alone, as a long prompt may take
    scheduler.add(request("text"))
    scheduler.step()
    scheduler.base, seconds = 0.004, []
    for _ in range(3):
        began = clock.seconds
        scheduler.step()
        seconds.append(clock.seconds - began)
    assert len(scheduler.image_steps) > 1
    assert max(seconds) < turns.SLOW_SECONDS


def test_a_step_with_images_that_a_cache_has_says_nothing_of_others(clock: Any) -> None:
    scheduler = SmallImages(clock)
    scheduler.add(*flood(8, images=1))
    scheduler.step()
    known = scheduler.turns.encoded_a_second
    scheduler.encodes = False
    scheduler.add(*flood(1, images=1))
    scheduler.run(1)
    assert math.isfinite(known)
    assert scheduler.turns.encoded_a_second == known


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


def test_after_an_error_nothing_is_held() -> None:
    broken = turns.ImageTurns()
    broken.safely(broken.begin, SimpleNamespace())
    assert broken.failed
    broken.held = True
    assert broken.safely(broken.admits, request("image", 1), otherwise=True)

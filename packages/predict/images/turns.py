"""Part of the engine's plugin: images and text take turns in the engine, so that a request without
images does not wait behind all images that came before it.

vLLM gives a step's tokens to running requests first, then to waiting ones in order of arrival. If
images are left over, nothing behind them is looked at (`Scheduler.schedule` stops looking at
waiting requests once the step's tokens or the encoder's budget are used up). So a flood of images
holds text up for as many steps as all of it takes.

Promises: a request without images waits only for the image work under way when it comes, one step
(two with async scheduling), while such requests have had less than OTHERS times what that step
took. After a slow step with images, if text came lately, images leave the engine free for that
long, so that most requests find it free. If text came lately, a step has only as much of large
prompts as takes about PART_SECONDS, in sixteenths of the step's tokens, beside the encoder's time
for an image, which nothing divides; and only as many small images as fit into LEAST_SECONDS, or
make it BESIDE times as long as the last step without images, but not slow; one at least. Without
text nothing waits. Images go in order, and wait for at most MOST_SECONDS at a time. Nothing is
reserved for any request.
"""

import functools
import math
import time
from typing import Any

from predict.scheduling import SchedulerTurns, StepTimes, awaits_grammar, hold_back, take_turns

SHARE = 0.4  # of the time, for images beside text: less than half, so that text finds it free
OTHERS = (1 - SHARE) / SHARE
# Of a step with small images beside text: a neighbour's first token then takes less than three
# times as long as alone (docs/resilience.md). A GPU may need longer only to read the weights.
LEAST_SECONDS, BESIDE = 0.015, 1.2
SLOW_SECONDS = 0.1  # a quicker step delays a first token by less than users notice
PART_SECONDS = (
    0.3  # no step beside text with more of large images; slow, so that it is free after it
)
TEXT_SECONDS = 2.0  # after text so recent, more may come; rare text costs images little
MOST_SECONDS = 10.0  # a paused host may make a step look longer


def image_work(request: Any) -> int:
    """The tokens of a request's prompt still to be computed, up to the end of its last image."""
    images = request.mm_features
    if not images:
        return 0
    last = images[-1].mm_position
    return int(max(0, last.offset + last.length - request.num_computed_tokens))


def has_image_work(request: Any) -> bool:
    return image_work(request) > 0


class ImageTurns(SchedulerTurns):
    """The turns of one scheduler."""

    whose = "images"

    def __init__(self) -> None:
        super().__init__()
        self.held = False  # the step that is scheduled works on no images
        self.running: list[Any] = []  # requests with image work, and those that the step admits
        self.left: float = 0  # tokens of images that the step may still admit
        # marked: the tokens of the images that the step encodes; None without image work
        self.times = StepTimes()
        self.encoded_a_second = math.inf  # tokens of images, in the last step that encoded some
        self.computed_a_second = 0.0  # all tokens, in the last step with image work
        self.seconds = SLOW_SECONDS  # what the last such step took
        self.base_seconds = 0.0  # what the last step without images took
        self.ended = self.text_at = -math.inf  # its end; when text last lacked a first token
        self.at = -math.inf
        self.spent = 0.0  # since that step, in steps that held images back

    def begin(self, scheduler: Any) -> None:
        """Decides whether the step that is scheduled next holds images back."""
        if not scheduler.max_num_encoder_input_tokens:  # a text model
            return
        now = time.monotonic()
        if self.held:  # from the end of an image step that was under way (async scheduling)
            self.spent += now - max(self.at, self.ended)
        self.at = now
        self.running = [request for request in scheduler.running if has_image_work(request)]
        images = bool(self.running)
        wanted = any(one.is_prefill_chunk and not one.mm_features for one in scheduler.running)
        for request in scheduler.waiting:
            if request.mm_features:
                images = True
            elif not awaits_grammar(request):
                wanted = True
        if wanted:
            self.text_at = now
        self.held = images and self.holds(now, wanted)
        if self.held:
            hold_back(scheduler, self.running)
        self.left = math.inf
        if now - self.text_at < TEXT_SECONDS:
            most = max(LEAST_SECONDS, min(BESIDE * self.base_seconds, SLOW_SECONDS / 2))
            self.left = most * self.encoded_a_second - sum(map(image_work, self.running))
            free = len(scheduler.running) < scheduler.max_num_active_reqs
            if images and not self.held and (self.running or free):
                self.divide(scheduler)

    def divide(self, scheduler: Any) -> None:
        """Limits the step to a part of what large prompts need. In sixteenths: a CPU's kernels keep
        1 MiB for each number of tokens they have seen."""
        if not scheduler.scheduler_config.enable_chunked_prefill:
            return
        sixteenth = scheduler.scheduler_config.max_num_batched_tokens // 16
        quick = int(PART_SECONDS * self.computed_a_second) // sixteenth
        part = sixteenth * min(16, max(1, quick))
        self.limit(scheduler, part)
        # of all prompts together: the first may wait for room that the second takes
        others = max(sixteenth, len(scheduler.running))  # tokens, for answers that go on
        scheduler.max_num_scheduled_tokens = min(scheduler.max_num_scheduled_tokens, part + others)

    def holds(self, now: float, wanted: bool) -> bool:
        """Whether to hold images back. `wanted`: there is text without its first token."""
        others = min(self.seconds * OTHERS, MOST_SECONDS)
        if wanted and self.spent < others:
            return True
        slow = self.seconds > SLOW_SECONDS and now - self.text_at < TEXT_SECONDS
        return slow and now < self.ended + others

    def admits(self, request: Any) -> bool:
        return not request.mm_features or (self.left > 0 and not self.held)

    def tried(self, request: Any, ready: bool) -> None:
        if ready and (tokens := image_work(request)):
            self.running.append(request)
            self.left -= tokens

    def scheduled(self, scheduler: Any, output: Any) -> None:
        tokens = output.num_scheduled_tokens
        work = [] if self.held else self.running
        if any(one.request_id in tokens for one in work):
            encoded = output.scheduled_encoder_inputs
            of_images = sum(
                one.mm_features[number].mm_position.length
                for one in work
                for number in encoded.get(one.request_id, ())
            )
            self.times.begun(output, self.at, of_images)
            self.spent = 0.0
        elif tokens:
            self.times.begun(output, self.at, None)

    def updated(self, output: Any) -> None:
        now = time.monotonic()
        for step, encoded, seconds in self.times.ended(output, now):
            if encoded is None:
                self.base_seconds = seconds
                continue
            self.seconds, self.ended = seconds, now
            self.computed_a_second = step.total_num_scheduled_tokens / max(1e-6, seconds)
            if encoded:
                self.encoded_a_second = encoded / max(1e-6, seconds)


turns = ImageTurns()


@functools.cache
def register() -> None:
    take_turns(turns)

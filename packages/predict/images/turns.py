"""Part of the engine's plugin: images and text take turns in the engine, so that a request without
images does not wait behind all images that came before it.

vLLM gives a step's tokens to what runs first, then to what waits, in order of arrival; where images
are left over, nobody behind them is looked at (`Scheduler.schedule` ends its look at those who wait
where the step's tokens or the encoder's budget are used up). So a flood of images holds text up for
as many steps as all of it takes.

Promises: a request without images waits for the image work that is under way when it comes, one
step (two with async scheduling), and no more, while such requests have had less than OTHERS times
what that step took. Where a step with images is slow, and text came lately, images leave the engine
free for that time: most who come find it so. Without text nothing waits. Images go in order, and
wait for MOST_SECONDS at a time at most. Nothing is reserved for anybody.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

from predict.constraints.turns import awaits_grammar
from predict.guard import guarded
from predict.scheduling import SchedulerTurns, StepTimes, hold_back, take_turns

SHARE = 0.4  # of the time, for images beside text: less than half, see the promise
OTHERS = (1 - SHARE) / SHARE
SLOW_SECONDS = 0.1  # a step that is quicker delays a first token by less than users notice
TEXT_SECONDS = 2.0  # where text came so lately, more may come; rare text costs images little
MOST_SECONDS = 10.0  # a paused host may make a step look longer


def has_image_work(request: Any) -> bool:
    """Whether images of its prompt, encoder or tokens, are still to be computed."""
    images = request.mm_features
    if not images:
        return False
    last = images[-1].mm_position
    return bool(request.num_computed_tokens < last.offset + last.length)


class ImageTurns(SchedulerTurns):
    """Of one scheduler."""

    def __init__(self) -> None:
        self.failed = False
        self.held = False  # the step that is scheduled works on no images
        self.running: list[Any] = []  # requests with image work, before that step
        self.times = StepTimes()  # of steps with images
        self.seconds = SLOW_SECONDS  # what the last of them took
        self.ended = self.text_at = -math.inf  # the last of them; when text had no first token yet
        self.at = -math.inf
        self.spent = 0.0  # since the last of them, in steps that held images back

    def begin(self, scheduler: Any) -> None:
        """Holds images back from the step that is scheduled next, or does not."""
        if not scheduler.max_num_encoder_input_tokens:  # a text model
            return
        now = time.monotonic()
        if self.held:  # since an image that was under way, with async scheduling, has ended
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

    def holds(self, now: float, wanted: bool) -> bool:
        """`wanted`: there is text without its first token."""
        others = min(self.seconds * OTHERS, MOST_SECONDS)
        if wanted and self.spent < others:
            return True
        slow = self.seconds > SLOW_SECONDS and now - self.text_at < TEXT_SECONDS
        return slow and now < self.ended + others

    def admits(self, request: Any) -> bool:
        return not (self.held and request.mm_features)

    def scheduled(self, scheduler: Any, output: Any) -> None:
        tokens = output.num_scheduled_tokens
        images = not self.held and any(request.request_id in tokens for request in self.running)
        if images or any(new.mm_features for new in output.scheduled_new_reqs):
            self.times.begun(output, self.at)
            self.spent = 0.0

    def updated(self, output: Any) -> None:
        now = time.monotonic()
        for _, _, seconds in self.times.ended(output, now):
            self.seconds, self.ended = seconds, now


turns = ImageTurns()


def safely(do: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
    """An error in here would end the engine, for everybody: after the first, nothing is held."""
    return guarded(turns, "images take no turns any more", do, arguments, otherwise)


@functools.cache
def register() -> None:
    take_turns(turns, safely)

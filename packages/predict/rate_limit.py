"""A rate limit for answers that cost the event loop time, but not the engine.

An error takes the loop a millisecond; a list of the models, or the tokens of a word, two. Eight
clients that ask again at once take all of its time, and each step of any other answer then waits
for eight of theirs.

Promises: while the engine works, and for LATELY_SECONDS after, at most A_SECOND such answers begin
a second, after the first AT_ONCE; later ones are delayed by MOST_SECONDS at most. All clients share
the rate, because a proxy hides who they are. It slows clients that wait for their answers: with
more than A_SECOND × MOST_SECONDS of them the rate is exceeded, and whoever disconnects at once is
not slowed.
"""

import math
import time

from predict.requests.turns import LATELY_SECONDS

A_SECOND = 200  # takes a fifth to two fifths of the event loop's time on a slow core
AT_ONCE = 20
MOST_SECONDS = 0.5  # a client that tests with a timeout of 1 s does not fail


class AnswerRate:
    def __init__(self) -> None:
        self.next_at = 0.0  # when the next answer may begin if more than AT_ONCE came just before
        self.engine_at = -math.inf  # when the engine last had work, as far as answers show

    def delay(self, engine_works: bool) -> float:
        """Counts an answer; the seconds until it may begin."""
        now = time.monotonic()
        if engine_works:
            self.engine_at = now
        if now - self.engine_at > LATELY_SECONDS:
            return 0.0
        due = max(self.next_at, now - AT_ONCE / A_SECOND) + 1 / A_SECOND
        self.next_at = min(due, now + MOST_SECONDS)
        return max(0.0, self.next_at - now)

"""How much may be done for the look-around of one constraint."""

# Steps of about a microsecond: what a client sends takes no longer than a mask may.
WORK = 20_000


class LookAroundError(ValueError):
    """The end of a sentence about the regular expression."""


class Work:
    """Of one constraint. Counted, not timed: what is taken does not depend on the machine."""

    def __init__(self, left: int = WORK) -> None:
        self.left = left

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise LookAroundError(
                "has look-ahead or word boundaries that are too much to follow; use smaller or "
                "fewer counts beside them, or fewer of (?=…), (?!…) and \\b"
            )

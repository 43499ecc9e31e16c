"""Limits the work on the look-around of one constraint."""

# Steps of about a microsecond: rewriting takes no longer than a mask may.
WORK = 20_000
# Levels of parentheses, and of nested calls; Python's own limit depends on the caller.
MOST_NESTED = 40
MOST_DEPTH = 80

TOO_MUCH = (
    "has look-ahead or word boundaries that are too much to follow; use smaller or fewer counts "
    "beside them, less that is long or nested, or fewer of (?=…), (?!…) and \\b"
)


class LookAroundError(ValueError):
    """Why a regular expression is refused: the end of a sentence about it."""


class Work:
    """The work on one constraint. It is counted, not timed, so that what passes does not depend on
    the machine."""

    def __init__(self, left: int = WORK) -> None:
        self.left = left
        self.depth = 0

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise LookAroundError(TOO_MUCH)

    def deeper(self, calls: int) -> None:
        self.depth += calls
        if self.depth > MOST_DEPTH:
            raise RecursionError

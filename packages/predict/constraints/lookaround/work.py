"""How much may be done for the look-around of one constraint."""

# Steps of about a microsecond: what a client sends takes no longer than a mask may.
WORK = 20_000
# Levels of parentheses, and calls within each other; Python's own limit depends on who calls.
MOST_NESTED = 40
MOST_DEPTH = 80

TOO_MUCH = (
    "has look-ahead or word boundaries that are too much to follow; use smaller or fewer counts "
    "beside them, less that is long or nested, or fewer of (?=…), (?!…) and \\b"
)


class LookAroundError(ValueError):
    """The end of a sentence about the regular expression."""


class Work:
    """Of one constraint. Counted, not timed: what is taken does not depend on the machine."""

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

"""Which regular expressions the engine follows in no time.

Promises: pure; an expression that passes keeps the engine's step within milliseconds, whatever text
it is matched with. xgrammar follows every way in which a text may match at once, so what counts is
not how large an expression is but how many repetitions may be at work on the same characters.
Refuses, with a `RegexError` that says what to write instead: repetitions that repeat what may match
a text in several ways, as `(a*)*`, unless their counts are small; too many overlapping ones side by
side; and what Python's `re` cannot read, for nobody can then tell.
"""

import importlib
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

parser: Any = importlib.import_module("re._parser")  # the parser of `re`, which has no public name

OTHER = 1 << 128  # characters beyond ASCII, all taken together
EVERY = OTHER | (OTHER - 1)
LEAST_WEIGHT = 25  # of an open or optional part; sixteen of them side by side take xgrammar 10 ms
SEPARATED = 32  # as many times more take xgrammar no longer
MOST_STEPS = 200_000  # of judging those of a request, some 100 ms


class RegexError(ValueError):
    """What is wrong with an expression, as the end of a sentence about it."""


def _ambiguous(most: float, allowed: int) -> RegexError:
    counts = "without end" if most == math.inf else f"up to {most:.0f} times"
    return RegexError(
        f"repeats, {counts} in all, what may match the same text in more than one way; at most "
        f"{allowed} is allowed there. Let each repetition begin or end with a character that it "
        r"has nowhere else, as in '(\w+ )*\w+' instead of '(\w+ ?)*'"
    )


@dataclass
class Part:
    """What the walk knows of a piece: whether it may be empty, and where it begins and ends."""

    empty: bool = True
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    fixed: bool = True  # every match has the same length


def check(regex: str, nested: int | None, overlapping: int | None, spent: int = 0) -> int:
    """The steps it took to judge it, `spent` included, of which there are `MOST_STEPS`.

    `nested`: the most that the counts of repetitions in an ambiguous repetition multiply to, and
    `SEPARATED` times as much where one character ends it; `overlapping`: the most that those side
    by side add up to. None is no limit of the kind.
    """
    if nested is None and overlapping is None:
        return spent
    if "[^]" in regex:
        raise RegexError(r"has '[^]', which is read in two ways; write '[\s\S]' or '[^\]]'")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = parser.parse(regex.replace("(?<", "(?P<") if "(?<" in regex else regex)
        automaton = _Automaton(spent)
        whole = automaton.read(tree)
    except (re.error, OverflowError) as error:
        raise RegexError(f"cannot be read: {error}") from None
    except RecursionError:
        raise RegexError("is nested too deeply") from None
    if nested is not None:
        for loop in automaton.loops:
            if loop.most > nested and (loop.undelimited or automaton.is_ambiguous(loop, wide=True)):
                raise _ambiguous(loop.most, nested)
            if loop.bounded > nested * SEPARATED and automaton.is_ambiguous(loop, wide=False):
                raise _ambiguous(loop.bounded, nested * SEPARATED)
    if overlapping is not None:
        most = automaton.overlap(whole.first)
        if most > overlapping:
            raise RegexError(
                f"has repetitions or optional parts side by side that may match the same "
                f"characters; their counts, {LEAST_WEIGHT} at least for each, add up to {most}, "
                f"and at most {overlapping} is allowed. Put something between them that they "
                "cannot match, or lower the counts"
            )
    return automaton.steps


@dataclass(frozen=True)
class _Loop:
    """A repetition, with those in it."""

    positions: range
    most: float  # what the counts multiply to, no end being infinite …
    bounded: int  # … and being one
    undelimited: bool  # one of them may begin anew, or go on, at the same character


class _Automaton:
    """Positions of an expression's characters (Glushkov's), and which may follow which."""

    def __init__(self, spent: int) -> None:
        self.masks: list[int] = []  # position → characters, a bit each
        self.owner: list[int | None] = []  # position → the innermost repetition it stands in
        self.follow: list[list[int]] = []
        self.weights: list[int] = []  # of each repetition
        self.loops: list[_Loop] = []  # the outermost
        self.undelimited = 0
        self.wide = False
        self.steps = spent

    # --- reading ---

    def read(self, items: Iterable[Any], inside: Sequence[tuple[int, int]] = ()) -> Part:
        """A sequence that stands `inside` repetitions: their numbers and counts, 0 being no end."""
        whole = Part()
        for op, value in items:
            whole = self._then(whole, self._one(str(op), value, inside))
        return whole

    def _then(self, one: Part, two: Part) -> Part:
        self._join(one.last, two.first)
        return Part(
            one.empty and two.empty,
            one.first + two.first if one.empty else one.first,
            one.last + two.last if two.empty else two.last,
            one.fixed and two.fixed,
        )

    def _join(self, last: list[int], first: list[int]) -> None:
        self._spend(len(last) * len(first))
        for position in last:
            self.follow[position] += first

    def _one(self, op: str, value: Any, inside: Sequence[tuple[int, int]]) -> Part:
        match op:
            case "AT" if str(value) in ("AT_BEGINNING", "AT_END"):
                return Part()  # xgrammar passes over ^ and $
            case "SUBPATTERN":
                return self.read(value[3], inside)
            case "BRANCH":
                return self._branch([list(branch) for branch in value[1]], inside)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, body = value
                return self._repeat(least, most, body, inside)
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN" | "AT":
                position = len(self.masks)
                self.masks.append(_mask(op, value))
                self.owner.append(inside[-1][0] if inside else None)
                self.follow.append([])
                return Part(False, [position], [position])
            case _:
                raise RegexError(f"has what the engine cannot follow ({op.lower()})")

    def _branch(self, branches: list[list[Any]], inside: Sequence[tuple[int, int]]) -> Part:
        """Choices. Those that begin with the same letter are read as one, so that words cost
        nothing."""
        whole = Part(False)
        begun: dict[Any, list[list[Any]]] = {}
        for branch in branches:
            literal = bool(branch) and str(branch[0][0]) == "LITERAL"
            begun.setdefault(branch[0][1] if literal else (len(begun),), []).append(branch)
        for begins in begun.values():
            if len(begins) == 1:
                part = self.read(begins[0], inside)
            else:
                part = self.read(begins[0][:1], inside)
                part = self._then(part, self._branch([one[1:] for one in begins], inside))
            whole.empty |= part.empty
            whole.first += part.first
            whole.last += part.last
        whole.fixed = False  # who counts?
        return whole

    def _repeat(self, least: int, most: int, body: Any, inside: Sequence[tuple[int, int]]) -> Part:
        if most == 0:
            return Part()
        if least == most == 1:
            return self.read(body, inside)
        count = 0 if most == parser.MAXREPEAT else most
        number = len(self.weights)
        weight = max(LEAST_WEIGHT, count)
        for _, outer in inside:
            weight *= max(outer, 1)
        self.weights.append(weight)
        start = len(self.masks)
        within = [*inside, (number, count)]
        loops, undelimited = len(self.loops), self.undelimited
        part = self.read(body, within)
        if least == most and part.fixed:
            return part  # a{3}: there is one way only
        if most > 1:
            if part.empty or self._goes_on(part):
                self.undelimited += 1
            self._join(part.last, part.first)
            within_it = self.loops[loops:]
            self.loops[loops:] = [
                _Loop(
                    range(start, len(self.masks)),
                    max((one.most for one in within_it), default=1) * (count or math.inf),
                    max((one.bounded for one in within_it), default=1) * max(count, 1),
                    undelimited < self.undelimited,
                )
            ]
        return Part(part.empty or least == 0, part.first, part.last, False)

    # --- judging ---

    def _goes_on(self, part: Part) -> bool:
        """Whether what ends may also go on with a character that it begins with."""
        beginning = 0
        for position in part.first:
            beginning |= self.masks[position]
        after = {then for position in part.last for then in self.follow[position]}
        return any(self.masks[position] & beginning for position in after)

    def _overlap(self, one: int, two: int) -> bool:
        """Whether two positions take the same character. With `wide`, not if it is the only one and
        either takes more: it is as good as a separator then, xgrammar has few tokens to try."""
        common = self.masks[one] & self.masks[two]
        if self.wide and not common & (common - 1 | OTHER):
            return common != 0 and self.masks[one] == self.masks[two]
        return common != 0

    def _diverging(self, positions: Iterable[int], within: range | None) -> set[tuple[int, int]]:
        """Pairs of positions that one character may lead to from the same one."""
        found: set[tuple[int, int]] = set()
        for position in positions:
            self._pairs(self.follow[position], found, within)
        return found

    def _pairs(self, then: list[int], found: set[tuple[int, int]], within: range | None) -> None:
        if within is not None:
            then = [position for position in then if position in within]
        for place, one in enumerate(then):
            self._spend(len(then) - place)
            for two in then[place + 1 :]:
                if self._overlap(one, two):
                    found.add((min(one, two), max(one, two)))

    def _reached(self, pairs: set[tuple[int, int]], within: range | None) -> set[tuple[int, int]]:
        """All pairs that the same text may lead to, from these."""
        waiting = list(pairs)
        while waiting:
            one, two = waiting.pop()
            if one == two:
                continue
            self._spend(len(self.follow[one]) * len(self.follow[two]))
            for left in self.follow[one]:
                for right in self.follow[two]:
                    pair = (min(left, right), max(left, right))
                    if pair in pairs or not self._overlap(left, right):
                        continue
                    if within is None or (left in within and right in within):
                        pairs.add(pair)
                        waiting.append(pair)
        return pairs

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise RegexError("is too large to be judged; make it smaller")

    def is_ambiguous(self, loop: _Loop, wide: bool) -> bool:
        """Whether a text may lead through the loop in two ways; with `wide`, whether one may that
        does not need a single character for it."""
        self.wide, positions = wide, loop.positions
        pairs = self._reached(self._diverging(positions, positions), positions)
        return any(one == two for one, two in pairs)

    def overlap(self, first: list[int]) -> int:
        """The most that repetitions which may be at work on the same character add up to."""
        self.wide = False
        pairs = self._diverging(range(len(self.masks)), None)
        self._pairs(first, pairs, None)
        partners: dict[int, set[int]] = {}
        for one, two in self._reached(pairs, None):
            for position, other in ((one, two), (two, one)):
                own = self.owner[other]
                if own is not None:
                    partners.setdefault(position, set()).add(own)
        for position, owners in partners.items():
            own = self.owner[position]
            if own is not None:
                owners.add(own)
        return max(
            (sum(map(self.weights.__getitem__, set_)) for set_ in partners.values()), default=0
        )


def _mask(op: str, value: Any) -> int:
    mask: int
    match op:
        case "LITERAL" | "NOT_LITERAL":
            negated = op == "NOT_LITERAL"
            mask = _in_class("LITERAL", value, negated)
        case "IN":
            mask, negated = 0, str(value[0][0]) == "NEGATE"
            for kind, inner in value[negated:]:
                mask |= _in_class(str(kind), inner, negated)
        case _:
            return EVERY  # xgrammar's "." is a line's end too
    return EVERY & ~mask if negated else mask


def _in_class(kind: str, value: Any, negated: bool) -> int:
    """The characters of a class's entry; of those beyond ASCII, none that a negation would lose."""
    mask: int
    match kind:
        case "LITERAL":
            mask = 1 << min(value, 128)
        case "RANGE":
            low, high = min(value[0], 128), min(value[1], 128)
            mask = (1 << (high + 1)) - (1 << low)
        case _:
            mask = _CATEGORIES[str(value)]
    return mask & ~OTHER if negated else mask


def _category(pattern: str) -> int:
    codes = (code for code in range(128) if re.fullmatch(pattern, chr(code), re.ASCII))
    return sum(1 << code for code in codes)


_CATEGORIES: dict[str, int] = {
    "CATEGORY_DIGIT": _category(r"\d"),
    "CATEGORY_NOT_DIGIT": OTHER | _category(r"\D"),
    "CATEGORY_WORD": _category(r"\w"),
    "CATEGORY_NOT_WORD": OTHER | _category(r"\W"),
    "CATEGORY_SPACE": OTHER | _category(r"\s"),
    "CATEGORY_NOT_SPACE": OTHER | _category(r"\S"),
}

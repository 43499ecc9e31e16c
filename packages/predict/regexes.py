"""Which regular expressions the engine follows in no time.

Promises: pure; an expression that passes keeps the engine's step within some tens of milliseconds,
whatever text it is matched with. What counts is not how large it is but how many repetitions may be
at work on the same characters. Where in doubt it refuses, with a `RegexError` that says what to
write instead: a repetition whose rounds cannot be told apart, as `(a*)*`, unless the counts are
small; too many overlapping ones side by side; and what Python's `re` cannot read.
"""

import importlib
import re
import warnings
from collections.abc import Iterable
from math import inf
from typing import Any, NamedTuple

parser: Any = importlib.import_module("re._parser")  # the parser of `re`, which has no public name

OTHER = 1 << 128  # characters beyond ASCII, all taken together
EVERY = OTHER | (OTHER - 1)
LEAST_WEIGHT = 25  # of an open or optional part; sixteen of them side by side take xgrammar 10 ms


class RegexError(ValueError):
    """What is wrong with an expression, as the end of a sentence about it."""


class Part(NamedTuple):
    """What is known of a piece. Sets of characters have a bit for each."""

    least: float = 0  # characters, and …
    most: float = 0
    first: int = 0  # those it may begin with, …
    on: int = 0  # those it may go on with where it may also end, …
    every: int = 0  # … and all
    clear: bool = True  # what comes next says which of its parts is at work
    apart: bool = False  # one after another can be told apart, clear or not
    nested: float = 1  # what the counts of the repetitions in one another multiply to
    weight: float = 0  # what the counts of those side by side add up to


def check(regex: str, nested: int | None, overlapping: int | None) -> None:
    """`nested`: the most that the counts of repetitions multiply to where their rounds cannot be
    told apart; `overlapping`: the most that those side by side add up to. None is no limit.
    """
    if nested is None and overlapping is None:
        return
    if "[^]" in regex:
        raise RegexError(r"has '[^]', which is read in two ways; write '[\s\S]' or '[^\]]'")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = parser.parse(regex.replace("(?<", "(?P<"))
        whole = _sequence(tree, inf if nested is None else nested)
    except (re.error, OverflowError) as error:
        raise RegexError(f"cannot be read: {error}") from None
    except RecursionError:
        raise RegexError("is nested too deeply") from None
    if overlapping is not None and not whole.clear and whole.weight > overlapping:
        raise RegexError(
            "has repetitions or optional parts side by side that may match the same characters; "
            f"their counts, {LEAST_WEIGHT} at least for each, add up to {whole.weight:.0f}, and at "
            f"most {overlapping} is allowed. Put something between them that they cannot match, "
            "or lower the counts"
        )


def _sequence(items: Iterable[Any], limit: float) -> Part:
    parts = [_part(str(op), value, limit) for op, value in items]
    if len(parts) == 1:
        return parts[0]
    whole, run, weight = Part(), 0, 0.0
    for part in parts:
        if part.least and not part.every & run:  # all that went before is over
            run, weight = 0, 0
        weight += part.weight
        if part.least != part.most or run:
            run |= part.every
        whole = Part(
            whole.least + part.least,
            whole.most + part.most,
            whole.first if whole.least else whole.first | part.first,
            part.on if part.least else whole.on | part.on,
            whole.every | part.every,
            whole.clear and part.clear and not whole.on & part.first,
            False,
            max(whole.nested, part.nested),
            max(whole.weight, weight),
        )
    return whole._replace(apart=_separated(parts))


def _separated(parts: list[Part]) -> bool:
    """Whether one of them is nowhere else, and what stands before it is not what stands behind."""
    after = [0]
    for part in reversed(parts):
        after.append(after[-1] | part.every)
    before = 0
    for part, rest in zip(parts, after[-2::-1], strict=True):
        if 0 < part.least == part.most and not (part.every & (before | rest) or before & rest):
            return True
        before |= part.every
    return False


def _part(op: str, value: Any, limit: float) -> Part:
    match op:
        case "AT" if str(value) in ("AT_BEGINNING", "AT_END"):
            return Part()  # xgrammar passes over ^ and $
        case "SUBPATTERN":
            return _sequence(value[3], limit)
        case "BRANCH":
            return _branch([list(branch) for branch in value[1]], limit)
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _repeat(*value, limit)
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
            mask = _mask(op, value)
            return Part(1, 1, mask, 0, mask)
        case _:
            raise RegexError(f"has what the engine cannot follow ({op.lower()})")


def _branch(branches: list[list[Any]], limit: float) -> Part:
    """Choices. Those that begin with the same letter are read as one, for words to be clear."""
    begun: dict[Any, list[list[Any]]] = {}
    for branch in branches:
        literal = bool(branch) and str(branch[0][0]) == "LITERAL"
        begun.setdefault(branch[0][1] if literal else (len(begun),), []).append(branch)
    parts = []
    for same in begun.values():
        if len(same) == 1:
            parts.append(_sequence(same[0], limit))
        else:
            rest = ("BRANCH", (None, [branch[1:] for branch in same]))
            parts.append(_sequence([same[0][0], rest], limit))
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    weight = sum(part.weight for part in parts) + LEAST_WEIGHT * (least != most)
    whole = Part(least, most, nested=max(part.nested for part in parts), weight=weight)
    for part in parts:
        whole = whole._replace(
            first=whole.first | part.first,
            on=whole.on | part.on,
            every=whole.every | part.every,
            clear=whole.clear and part.clear and not whole.first & part.first,
        )
    return whole if least else whole._replace(on=whole.on | whole.first)


def _repeat(least: int, most: int, body: Any, limit: float) -> Part:
    part = _sequence(body, limit)
    open_ = most == parser.MAXREPEAT
    if open_ and str(body[0][0]) == "ANY":
        # a line's end ends it for whoever writes '.*\n'; xgrammar has only one way more to follow
        part = part._replace(first=EVERY & ~(1 << 10), every=EVERY & ~(1 << 10))
    fixed = 0 < part.least == part.most
    clear = fixed or (part.clear and part.least > 0 and not part.on & part.first)
    nested = (inf if open_ else most) * part.nested
    if most > 1 and nested > limit and not (clear or part.apart):
        counts = "without end" if nested == inf else f"up to {nested:.0f} times"
        raise RegexError(
            f"repeats, {counts} in all, what may match the same text in more than one way; at most "
            f"{limit:.0f} is allowed there. Let what is repeated begin or end with a character "
            r"that it has nowhere else, as in '(\w+ )*\w+' instead of '(\w+ ?)*'"
        )
    count = 1 if open_ else most
    return Part(
        least * part.least,
        (inf if open_ else most) * part.most if part.most else 0,
        part.first,
        part.on if least == most else part.on | part.first,
        part.every,
        part.clear and (clear or most <= 1),
        False,
        1 if least == most and fixed else nested,
        part.weight * count + (count if least == most else max(LEAST_WEIGHT, count)),
    )


def _mask(op: str, value: Any) -> int:
    """The characters of one place; of those beyond ASCII, none that a negation would lose."""
    if op == "ANY":
        return EVERY  # xgrammar's "." is a line's end too
    entries = value if op == "IN" else [(op.removeprefix("NOT_"), value)]
    negated = op == "NOT_LITERAL" or str(entries[0][0]) == "NEGATE"
    mask = 0
    for kind, inner in entries:
        match str(kind):
            case "LITERAL":
                mask |= 1 << min(inner, 128)
            case "RANGE":
                mask |= (2 << min(inner[1], 128)) - (1 << min(inner[0], 128))
            case "CATEGORY":
                mask |= CATEGORIES[str(inner)]
    return EVERY & ~mask | OTHER if negated else mask


CATEGORIES = {
    f"CATEGORY_{name}": sum(1 << code for code in range(128) if re.match(pattern, chr(code), re.A))
    | (OTHER if pattern in r"\D\W\s\S" else 0)
    for name, pattern in {
        "DIGIT": r"\d",
        "NOT_DIGIT": r"\D",
        "WORD": r"\w",
        "NOT_WORD": r"\W",
        "SPACE": r"\s",
        "NOT_SPACE": r"\S",
    }.items()
}

"""Which regular expressions the engine can follow in time: an estimate from their syntax alone.

Promises: pure functions. Refuses, with a `RegexError`, expressions that Python's `re` cannot read,
nested repetitions whose rounds cannot be told apart, as `(a*)*`, and too many adjacent repetitions
of the same characters.
"""

import importlib
import re
import string
import warnings
from collections.abc import Iterable
from math import inf
from typing import Any, NamedTuple

parser: Any = importlib.import_module("re._parser")  # the parser of `re`, which has no public name

OTHER = 1 << 128  # a set of characters has a bit for each, and one for all those beyond ASCII
EVERY = OTHER | OTHER - 1
NEWLINE = 1 << 10
CLASSES = {
    name: sum(1 << ord(character) for character in characters)
    for name, characters in (
        ("DIGIT", string.digits),
        ("WORD", string.ascii_letters + string.digits + "_"),
        ("SPACE", string.whitespace + "\x80"),  # U+00A0 is one
    )
}
LEAST_WEIGHT = 25  # of an open or optional part; sixteen of them side by side take xgrammar 10 ms
ADVICE = (
    "Lower the counts, or let each piece begin with a character by which the one before it cannot "
    r"go on, as in '(\w+ )*\w+' instead of '(\w+ ?)*'"
)


class RegexError(ValueError):
    """What is wrong with an expression, as the end of a sentence about it."""


class Part(NamedTuple):
    least: float = 0  # characters, and …
    most: float = 0
    first: int = 0  # those it may begin with, …
    on: int = 0  # those it may go on with where it may also end, …
    every: int = 0  # … and all
    clear: bool = True  # the next character says which piece of it is at work
    apart: bool = False  # it begins or ends with what it has nowhere else
    nested: float = 1  # what the counts of repetitions in one another multiply to
    weight: float = 0  # what those of overlapping ones add up to


def check_regex(regex: str, nested: int | None, overlapping: int | None) -> None:
    """`nested`: the most that counts multiply to where the rounds cannot be told apart;
    `overlapping`: the most that they add up to where it is unclear which is at work."""
    if nested is None and overlapping is None:
        return
    for sign in ("[^]", r"\0"):
        if sign in regex:
            raise RegexError(f"has '{sign}', which is read in two ways")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = parser.parse(regex)
        whole = _sequence(tree, inf if nested is None else nested)
    except (re.error, OverflowError) as error:
        raise RegexError(f"cannot be read: {error}") from None
    except RecursionError:
        raise RegexError("is nested too deeply") from None
    if overlapping is not None and not whole.clear and whole.weight > overlapping:
        raise RegexError(
            "has repetitions side by side that may match the same characters, with counts, "
            f"{LEAST_WEIGHT} at least, that add up to {whole.weight:.0f}; at most {overlapping} "
            f"is allowed. {ADVICE}"
        )


def _sequence(items: Iterable[Any], limit: float) -> Part:
    parts = [_part(str(op), value, limit) for op, value in items]
    whole, run, weight = Part(), 0, 0.0
    for part in parts:
        if part.least and not part.every & run:  # all that was at work before it is over
            run, weight = 0, 0
        weight += part.weight
        run |= part.every if run or part.least != part.most else 0
        whole = Part(
            whole.least + part.least,
            whole.most + part.most,
            whole.first | part.first * (not whole.least),
            part.on | whole.on * (not part.least),
            whole.every | part.every,
            whole.clear and part.clear and not whole.on & part.first,
            part.apart,
            max(whole.nested, part.nested),
            max(whole.weight, weight),
        )
    if len(parts) > 1:
        ends = (parts[0], parts[1:]), (parts[-1], parts[:-1])
        whole = whole._replace(
            apart=any(
                0 < end.least == end.most and not any(end.every & other.every for other in others)
                for end, others in ends
            )
        )
    return whole


def _part(op: str, value: Any, limit: float) -> Part:
    match op:
        case "AT" if str(value) in ("AT_BEGINNING", "AT_END"):
            return Part()  # xgrammar passes over ^ and $
        case "SUBPATTERN":
            return _sequence(value[3], limit)
        case "BRANCH":
            return _branch(value[1], limit)
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _repeat(value[0], value[1], value[2], limit)
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
            mask = _mask(op, value)
            return Part(1, 1, mask, 0, mask)
        case _:
            raise RegexError(f"has what the engine cannot follow ({op.lower()})")


def _branch(branches: Iterable[Any], limit: float) -> Part:
    """Options. Those that begin with the same letter are read as one, for words to be clear."""
    begun: dict[Any, list[Any]] = {}
    for branch in branches:
        literal = len(branch) and str(branch[0][0]) == "LITERAL"
        begun.setdefault(branch[0][1] if literal else (len(begun),), []).append(branch)
    parts = []
    for same in begun.values():
        rest = [("BRANCH", (None, [branch[1:] for branch in same]))]
        parts.append(_sequence(same[0] if len(same) == 1 else [same[0][0], *rest], limit))
    first, on, every, clear = 0, 0, 0, True
    for part in parts:
        clear = clear and part.clear and not first & part.first
        first, on, every = first | part.first, on | part.on, every | part.every
    least, most = min(part.least for part in parts), max(part.most for part in parts)
    nested = max(part.nested for part in parts)
    weight = sum(part.weight for part in parts) + LEAST_WEIGHT * (least != most or not clear)
    return Part(least, most, first, on | first * (not least), every, clear, False, nested, weight)


def _repeat(least: int, most: float, body: Any, limit: float) -> Part:
    if most == 0:
        return Part()
    part, count = _sequence(body, limit), int(most)
    if most == parser.MAXREPEAT:
        most, count = inf, 1
        if [str(op) for op, _ in body] == [
            "ANY"
        ]:  # '.*\n' is clear to people, and no work for xgrammar
            part = part._replace(first=EVERY ^ NEWLINE, every=EVERY ^ NEWLINE)
    fixed = 0 < part.least == part.most
    told = fixed or (part.clear and part.least > 0 and not part.on & part.first)
    nested = most * part.nested
    if most > 1 and nested > limit and not (told or part.apart):
        counts = "without end" if nested == inf else f"up to {nested:.0f} times"
        raise RegexError(
            f"repeats, {counts} in all, what may match the same text in more than one way; at most "
            f"{limit:.0f} is allowed there. {ADVICE}"
        )
    return Part(
        least * part.least,
        most * part.most if part.most else 0,
        part.first,
        part.on | part.first * (least != most),
        part.every,
        part.clear and (told or most <= 1),
        False,
        1 if fixed and least == most else nested,
        part.weight * count + max(LEAST_WEIGHT * (least != most), count),
    )


def _mask(op: str, value: Any) -> int:
    if op == "ANY":
        return EVERY  # xgrammar's "." is a line's end too
    entries = value if op == "IN" else [(op.removeprefix("NOT_"), value)]
    mask = 0
    for kind, inner in entries:
        match str(kind):
            case "LITERAL":
                mask |= 1 << min(inner, 128)
            case "RANGE":
                mask |= (2 << min(inner[1], 128)) - (1 << min(inner[0], 128))
            case "CATEGORY":
                name = str(inner).removeprefix("CATEGORY_")
                among = CLASSES[name.removeprefix("NOT_")]
                mask |= EVERY & ~among | OTHER if name.startswith("NOT_") else among
    negated = op == "NOT_LITERAL" or str(entries[0][0]) == "NEGATE"
    return EVERY & ~mask | OTHER if negated else mask

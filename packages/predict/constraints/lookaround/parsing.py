"""A regular expression as a tree, and its alphabet: the classes of characters it distinguishes.

Promises: Python's own parser reads it, in the JavaScript dialect that xgrammar takes. What one of
them does not know, or reads differently, is an error. Trees are small: repetitions of nothing, or
of what may be empty, are simplified.
"""

import re
from dataclasses import dataclass
from typing import Any

from predict.constraints.lookaround.work import MOST_NESTED, Work
from predict.constraints.ranges import ALL, LAST, Ranges, complement, union

WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
DIGIT: Ranges = ((48, 57),)
SPACE: Ranges = ((9, 13), (32, 32))
WIDE_SPACE: Ranges = (*SPACE, (160, 160))

# What Python writes differently, or reads differently from xgrammar
DIALECT = re.compile(
    r"\\u\{(?P<code>[0-9a-fA-F]{1,6})\}|(?P<python>\\(?:[NUa1-9]|0[0-9]))|\\."
    r"|\[\^?\]?|\(\?(?:<(?![=!])|#)|\{,|&&|\|\||~~|--|.",
    re.DOTALL,
)


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """`set`, `cat`, `alt`, `repeat`, `ahead`, `boundary`, `start` or `end`; within one reading,
    equal nodes are the same object."""

    kind: str
    parts: tuple["Node", ...] = ()
    ranges: Ranges = ()
    least: int = 0
    most: int | None = None
    negated: bool = False

    plain: bool = True  # without look-around
    nullable: bool = False  # may be empty, whatever it looks at


class Nodes:
    def __init__(self) -> None:
        self.known: dict[Any, Node] = {}
        self.empty = self.cat([])

    def make(self, kind: str, plain: bool, nullable: bool, **more: Any) -> Node:
        key = (kind, *more.values())
        if key not in self.known:
            self.known[key] = Node(kind, plain=plain, nullable=nullable, **more)
        return self.known[key]

    def set(self, ranges: Ranges) -> Node:
        return self.make("set", True, False, ranges=ranges)

    def looks(self, kind: str, *parts: Node, negated: bool = False) -> Node:
        return self.make(kind, False, True, parts=parts, negated=negated)

    def cat(self, parts: list[Node]) -> Node:
        flat = tuple(
            one for part in parts for one in (part.parts if part.kind == "cat" else [part])
        )
        if len(flat) == 1:
            return flat[0]
        plain, nullable = all(one.plain for one in flat), all(one.nullable for one in flat)
        return self.make("cat", plain, nullable, parts=flat)

    def alt(self, parts: list[Node]) -> Node:
        found = tuple(dict.fromkeys(one for one in parts if one is not self.empty))
        if not found:
            return self.empty
        plain, nullable = all(one.plain for one in found), any(one.nullable for one in found)
        one = found[0] if found[1:] == () else self.make("alt", plain, nullable, parts=found)
        return one if len(found) == len(set(parts)) else self.repeat(one, 0, 1)

    def repeat(self, one: Node, least: int, most: int | None) -> Node:
        if most == 0 or one is self.empty:
            return self.empty
        if one.plain and one.nullable:
            least = 0
            if one.kind == "repeat" and one.most is None:
                return one
            if one.kind == "repeat" and one.most == 1:
                one = one.parts[0]
        if most is None and one.nullable:
            if not one.plain:
                raise ValueError("nothing, again and again, under a condition")
            one = self.filled(one)
        if (least, most) == (1, 1):
            return one
        nullable = least == 0 or one.nullable
        return self.make("repeat", one.plain, nullable, parts=(one,), least=least, most=most)

    def filled(self, one: Node) -> Node:
        """A node that is the same when repeated, but is never empty."""
        if not one.nullable:
            return one
        return self.alt([self.filled(part) for part in one.parts])


class Read:
    """An expression, and the characters of each letter of its alphabet."""

    def __init__(self, top: Node, nodes: Nodes, sets: list[Ranges], work: Work) -> None:
        self.top, self.nodes, self.plain = top, nodes, top.plain
        changes: dict[int, int] = {0: 0}  # character → bits of the sets that begin or end there
        for number, ranges in enumerate(sets):
            for first, last in ranges:
                for at in (first, last + 1):
                    changes[at] = changes.get(at, 0) ^ 1 << number
        work.take(len(changes))
        letters: dict[int, list[tuple[int, int]]] = {}  # by the bits of the sets that have them
        starts, bits = sorted(changes), 0
        for start, end in zip(starts, [*starts[1:], LAST + 1], strict=True):
            bits ^= changes[start]
            if start < end:
                letters.setdefault(bits, []).append((start, end - 1))
        self.letters = list(letters.values())
        self.all = (1 << len(letters)) - 1
        work.take(len(sets) * len(letters) // 8)
        self.masks = {  # set → its letters, as bits
            ranges: sum(1 << letter for letter, bits in enumerate(letters) if bits >> number & 1)
            for number, ranges in enumerate(sets)
        }
        self.word = self.masks[WORD]


def read(regex: str, work: Work, in_string: bool) -> Read:
    """Reads an expression as xgrammar does: alone, or for a string in JSON (`in_string`)."""
    from re import _parser  # private: callers must be ready for any error

    work.take(20 + len(regex) // 2)
    parsed = _parser.parse(in_python(regex))
    if parsed.state.flags != re.UNICODE:
        raise ValueError("a flag")
    nodes, sets = Nodes(), dict.fromkeys([ALL, WORD])
    categories = {"DIGIT": DIGIT, "WORD": WORD, "SPACE": SPACE if in_string else WIDE_SPACE}

    def found(ranges: Ranges) -> Node:
        sets[ranges] = None
        return nodes.set(ranges)

    def tree(parts: Any) -> Node:
        return nodes.cat([node(str(name), value) for name, value in parts])

    def node(name: str, value: Any) -> Node:
        work.take(1)
        match name:
            case "LITERAL":
                return found(((value, value),))
            case "NOT_LITERAL":
                return found(complement(((value, value),)))
            case "ANY":
                return found(ALL)
            case "IN":
                work.take(len(value))
                return found(members(value, categories))
            case "BRANCH":
                return nodes.alt([tree(one) for one in value[1]])
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, one = value
                return nodes.repeat(
                    tree(one), least, None if most == _parser.MAXREPEAT else int(most)
                )
            case "SUBPATTERN" if value[1] == value[2] == 0:  # no flags
                return tree(value[3])
            case "ASSERT" | "ASSERT_NOT" if value[0] == 1:  # not look-behind
                return nodes.looks("ahead", tree(value[1]), negated=name == "ASSERT_NOT")
            case "AT":
                kind, negated = ANCHORS[str(value)]
                return nodes.looks(kind, negated=negated)
        raise ValueError(name)

    top = tree(parsed)
    return Read(top, nodes, list(sets), work)


ANCHORS = {
    "AT_BEGINNING": ("start", False),
    "AT_END": ("end", False),
    "AT_BOUNDARY": ("boundary", False),
    "AT_NON_BOUNDARY": ("boundary", True),
}


def in_python(regex: str) -> str:
    within, nested, found = False, 0, list[str]()
    for part in DIALECT.finditer(regex):
        text = part[0]
        if part["code"]:
            text = f"\\U{int(part['code'], 16):08x}"
        elif part["python"] or (text == "(?#" and not within):
            raise ValueError("a name, a number of another base, a bell or a comment")
        elif within:
            within = not text.endswith("]") or text[0] == "\\"
            if text in ("&&", "||", "~~", "--"):
                raise ValueError("what is to mean something else in Python one day")
            if text[0] == "[":
                text = f"\\{text}"
        elif text[0] == "[":
            if text.endswith("]"):
                raise ValueError("an empty set, or one that begins with ]")
            within = True
        elif text in ("(", ")"):
            nested += 1 if text == "(" else -1
            if nested > MOST_NESTED:
                raise RecursionError
        elif text == "{,":
            raise ValueError("a count without its least")
        elif text == "(?<":
            text = "(?P<"
        found.append(text)
    return "".join(found)


def members(parts: Any, categories: dict[str, Ranges]) -> Ranges:
    """The ranges of a set in brackets."""
    ranges, negated = list[tuple[int, int]](), False
    for name, value in parts:
        match str(name):
            case "NEGATE":
                negated = True
            case "LITERAL":
                ranges.append((value, value))
            case "RANGE":
                ranges.append(tuple(value))
            case "CATEGORY":
                category = str(value).removeprefix("CATEGORY_")
                own = categories[category.removeprefix("NOT_")]
                ranges += complement(own) if category.startswith("NOT_") else own
            case other:
                raise ValueError(other)
    found = union(ranges)
    return complement(found) if negated else found

"""A finite automaton, and its form for xgrammar: a regular expression, or a grammar.

Promises: an expression means the same to both of xgrammar's readers (one for a text, one for a
string in JSON) and to JavaScript.
"""

from predict.constraints.lookaround.parsing import Node
from predict.constraints.lookaround.work import LookAroundError, Work
from predict.constraints.ranges import ALL, LAST, Ranges, complement, union

Row = dict[int, int]  # state → letters that lead there, as bits
Text = tuple[int, str]  # how tightly it binds, and an expression

CHOICE, SEQUENCE, ONE = range(3)
END = -1

NOTHING = "matches no text as a whole; where text may follow, say so with .*"


class Words:
    """Writes the parts of a regular expression."""

    letters: list[list[tuple[int, int]]]
    work: Work

    def __init__(self) -> None:
        self.sets: dict[int, str] = {}

    def anything(self) -> str:
        return f"{self.ranges(ALL)}*"

    def set(self, mask: int) -> str:
        """The set of the letters in `mask`."""
        if mask not in self.sets:
            own = [it for number, it in enumerate(self.letters) if mask >> number & 1]
            self.sets[mask] = self.ranges(union([it for ranges in own for it in ranges]))
        return self.sets[mask]

    def text(self, node: Node, holds: int = SEQUENCE) -> str:
        """A node without look-around, in parentheses if it must bind more tightly."""
        self.work.take(1)
        match node.kind:
            case "set":
                return self.ranges(node.ranges)
            case "cat":
                found, own = "".join(self.text(part) for part in node.parts), SEQUENCE
            case "alt":
                found, own = "|".join(self.text(part) for part in node.parts), CHOICE
            case _:
                found, own = self.text(node.parts[0], ONE) + self.count(node), SEQUENCE
        return found if own >= holds else f"({found})"

    def count(self, node: Node) -> str:
        if node.most is None:
            return {0: "*", 1: "+"}.get(node.least, f"{{{node.least},}}")
        if (node.least, node.most) == (0, 1):
            return "?"
        least = "" if node.least == node.most else f"{node.least},"
        return f"{{{least}{node.most}}}"

    def ranges(self, ranges: Ranges) -> str:
        self.work.take(1 + len(ranges) // 2)
        if ranges == ALL:
            return "."
        if ranges[0][0] == ranges[-1][1]:
            return self.escaped(ranges[0][0])
        found, negated = self.members(ranges), self.members(complement(ranges))
        return f"[^{negated}]" if len(negated) < len(found) else f"[{found}]"

    def members(self, ranges: Ranges) -> str:
        """The inside of brackets. xgrammar forgets that a ^ was escaped, so it does not come first;
        and xgrammar adds a digit to a control character before it, so these come last."""
        found, last = "", ""
        for first, end in sorted(ranges, key=lambda it: not 32 <= it[1] < 127):
            if first == ord("^") and not found:
                first, last = first + 1, "\\^"
            if first <= end:
                found += self.escaped(first)
                found += ("-" if first + 1 < end else "") + self.escaped(end) if first < end else ""
        return found + last

    def escaped(self, code: int) -> str:
        if 32 <= code < 127:
            return f"\\{chr(code)}" if chr(code) in r"\^$.|?*+()[]{}-" else chr(code)
        # not \x…, to which xgrammar adds all digits that follow
        return f"\\u{code:04x}" if code < 0x10000 else self.far(code)

    def far(self, code: int) -> str:
        return f"\\u{{{code:x}}}"


class EbnfWords(Words):
    """Writes the parts of a grammar in xgrammar's EBNF."""

    def ranges(self, ranges: Ranges) -> str:
        if ranges == ALL:
            return f"[\\u0000-\\U{LAST:08x}]"
        found = super().ranges(ranges)
        return found if found[0] == "[" else f"[{found}]"

    def far(self, code: int) -> str:
        return f"\\U{code:08x}"


class Automaton:
    """Each state has arrows and a rest: an expression for what else may follow up to the end; None
    if nothing may, not even the end. The first state is 0."""

    def __init__(self, arrows: list[Row], rests: list[str | None]) -> None:
        self.arrows, self.rests = arrows, rests

    def minimized(self, work: Work) -> "Automaton":
        """Without equivalent states (Moore's algorithm), and without dead ends."""
        found = dict[object, int]()
        kinds = [found.setdefault(rest, len(found)) for rest in self.rests]
        size = 0
        while size < len(found):
            size, found = len(found), {}
            work.take(sum(1 + len(row) for row in self.arrows) // 4)
            rows = [merged(row, kinds) for row in self.arrows]
            signs = zip(kinds, rows, strict=True)
            kinds = [
                found.setdefault((kind, frozenset(row.items())), len(found)) for kind, row in signs
            ]
        states = {kind: number for number, kind in reversed(list(enumerate(kinds)))}
        arrows = [merged(self.arrows[states[kind]], kinds) for kind in range(size)]
        rests = [self.rests[states[kind]] for kind in range(size)]
        leads = list[set[int]](set() for _ in arrows)
        for state, row in enumerate(arrows):
            for to in row:
                leads[to].add(state)
        alive = {state for state, rest in enumerate(rests) if rest is not None}
        todo = list(alive)
        while todo:
            todo += (fresh := leads[todo.pop()] - alive)
            alive |= fresh
        if 0 not in alive:
            raise LookAroundError(NOTHING)
        pruned = [{to: row[to] for to in row if to in alive} for row in arrows]
        return Automaton([pruned[it] if it in alive else {} for it in range(size)], rests)


def merged(row: Row, kinds: list[int]) -> Row:
    found = Row()
    for to, letters in row.items():
        found[kinds[to]] = found.get(kinds[to], 0) | letters
    return found


def grammar(automaton: Automaton, words: Words) -> str:
    lines = []
    names = ["root", *(f"s{state}" for state in range(1, len(automaton.arrows)))]
    for state, row in enumerate(automaton.arrows):
        choices = [f"{words.set(letters)} {names[to]}" for to, letters in row.items()]
        rest = automaton.rests[state]
        if rest is not None:
            choices.append(rest or '""')
        if choices:
            lines.append(f"{names[state]} ::= {' | '.join(choices)}\n")
            words.work.take(len(lines[-1]) // 16)
    return "".join(lines)


def expression(automaton: Automaton, words: Words) -> str:
    """Eliminates the states one by one, first those that make the others grow least."""
    start = len(automaton.arrows)
    out: dict[int, dict[int, Text]] = {start: {0: (SEQUENCE, "")}}
    into: dict[int, set[int]] = {state: set() for state in range(-1, start)}
    for state, row in enumerate(automaton.arrows):
        out[state] = {to: (ONE, words.set(letters)) for to, letters in row.items()}
        rest = automaton.rests[state]
        if rest is not None:
            out[state][END] = (SEQUENCE, rest)
    for state, texts in out.items():
        for to in texts:
            into[to].add(state)

    def growth(state: int) -> int:
        ins = [len(out[it][state][1]) for it in into[state] if it != state]
        outs = [len(text) for to, (_, text) in out[state].items() if to != state]
        loop = len(out[state].get(state, (ONE, ""))[1])
        return (
            (len(outs) - 1) * sum(ins)
            + (len(ins) - 1) * sum(outs)
            + (len(ins) * len(outs) - 1) * loop
        )

    growths = {state: growth(state) for state in range(start)}
    while growths:
        words.work.take(1 + len(growths) // 8)
        state = min(growths, key=growths.__getitem__)
        del growths[state]
        loop = out[state].pop(state, (ONE, ""))
        between = [(SEQUENCE, f"{tight(loop, ONE)}*")] if loop[1] else []
        into[state].discard(state)
        for before in into[state]:
            first = out[before].pop(state)
            for to, last in out[state].items():
                text = joined([first, *between, last])
                words.work.take(1 + len(text[1]) // 16)
                other = out[before].get(to)
                out[before][to] = text if other is None else either(other, text)
                into[to].add(before)
        for to in out[state]:
            into[to].discard(state)
        for near in (into[state] | out[state].keys()) & growths.keys():
            growths[near] = growth(near)
    return out[start][END][1]


def tight(text: Text, holds: int) -> str:
    return text[1] if text[0] >= holds else f"({text[1]})"


def joined(texts: list[Text]) -> Text:
    found = [text for text in texts if text[1]]
    if len(found) == 1:
        return found[0]
    return SEQUENCE, "".join(tight(text, SEQUENCE) for text in found)


def either(one: Text, other: Text) -> Text:
    if not one[1] or not other[1]:
        text = one if one[1] else other
        return (SEQUENCE, f"{tight(text, ONE)}?") if text[1] else text
    return CHOICE, f"{one[1]}|{other[1]}"

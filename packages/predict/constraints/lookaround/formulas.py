"""Formulas about the text to come, and the automaton whose states they are.

A formula is a set of alternatives; each is a set of parts that hold at once: an atom's number, or
~number if the atom does not hold. An atom is a node of parsing.py and the formula of what follows
it. So a look-ahead is one more part; the end of the text is another, which holds only for an empty
text.
Promises: exact; each operation counts the work it does.
"""

from collections.abc import Iterable

from predict.constraints.lookaround.automata import Automaton, Words
from predict.constraints.lookaround.parsing import Node, Read
from predict.constraints.lookaround.work import Work
from predict.constraints.ranges import ALL

Formula = frozenset[frozenset[int]]

NEVER: Formula = frozenset()
ALWAYS: Formula = frozenset([frozenset()])

START, OTHER, WORD = range(3)  # what precedes the text to come


def automaton(read: Read, work: Work, words: Words) -> Automaton:
    return _Formulas(read, work).automaton(words)


class _Formulas:
    def __init__(self, read: Read, work: Work) -> None:
        self.read, self.work, self.nodes = read, work, read.nodes
        self.atoms: list[tuple[Node, Formula]] = []
        self.numbers: dict[tuple[Node, Formula], int] = {}
        self.known: dict[tuple[int, int, int], Formula] = {}
        self.texts: dict[int, str | None] = {}
        nodes = self.nodes.known.values()
        self.masks = {it: read.masks[it.ranges] for it in nodes if it.kind == "set"}
        self.anything = self.nodes.repeat(self.nodes.set(ALL), 0, None)
        self.end = self.atom(self.nodes.looks("end"), NEVER)

    def automaton(self, words: Words) -> Automaton:
        words.letters, words.work = self.read.letters, self.work
        boundaries = any(node.kind == "boundary" for node in self.nodes.known.values())
        first = (self.then(self.read.top, self.end), START)
        states, arrows, rests = {first: 0}, list[dict[int, int]](), list[str | None]()
        for formula, before in (todo := [first]):
            row = dict[int, int]()  # state → letters that lead there, as bits
            rest = self.text(formula, words)
            if rest is None:
                rest = "" if self.ends(formula, before) else None
                self.work.take(len(self.read.letters))
                for letter in range(len(self.read.letters)):
                    if left := self.after(formula, letter, before):
                        is_word = boundaries and self.read.word >> letter & 1
                        state = (left, WORD if is_word else OTHER)
                        if state not in states:
                            states[state] = len(todo)
                            todo.append(state)
                        row[states[state]] = row.get(states[state], 0) | 1 << letter
            arrows.append(row)
            rests.append(rest)
        return Automaton(arrows, rests)

    def either(self, formulas: Iterable[Formula]) -> Formula:
        found = frozenset[frozenset[int]]().union(*formulas)
        self.work.take(len(found) ** 2 // 8)
        if len(found) < 2:
            return found
        return frozenset(one for one in found if not any(other < one for other in found))

    def both(self, one: Formula, other: Formula) -> Formula:
        if one == ALWAYS or other == ALWAYS:
            return other if one == ALWAYS else one
        parts = sum(map(len, one)) * len(other) + sum(map(len, other)) * len(one)
        self.work.take(1 + parts // 12)
        joined = {a | b for a in one for b in other}
        return self.either([frozenset(a for a in joined if not any(~part in a for part in a))])

    def neither(self, formula: Formula) -> Formula:
        found = ALWAYS
        for parts in formula:
            found = self.both(found, frozenset(frozenset([~part]) for part in parts))
        return found

    def atom(self, node: Node, rest: Formula) -> Formula:
        key = (node, rest)
        if key not in self.numbers:
            self.numbers[key] = len(self.atoms)
            self.atoms.append(key)
        return frozenset([frozenset([self.numbers[key]])])

    def then(self, node: Node, rest: Formula) -> Formula:
        """The text begins with `node`, and `rest` holds after it."""
        self.work.take(1)
        if not rest or node is self.nodes.empty:
            return rest
        if node.kind == "cat" and not node.plain:
            for part in reversed(node.parts):
                rest = self.then(part, rest)
            return rest
        if node.kind == "alt" and not node.plain:
            return self.either([self.then(part, rest) for part in node.parts])
        if node.kind == "ahead":
            found = self.then(node.parts[0], ALWAYS)
            return self.both(self.neither(found) if node.negated else found, rest)
        if node.kind == "end":
            return self.both(self.end, rest)
        if rest == ALWAYS and node is self.anything:
            return ALWAYS
        return self.atom(node, rest)

    def after(self, formula: Formula, letter: int, before: int) -> Formula:
        """What is left of a formula once a letter has been read."""
        alternatives = []
        self.work.deeper(1)
        for parts in formula:
            found = ALWAYS
            for part in parts:
                left = self.after_atom(max(part, ~part), letter, before)
                found = self.both(found, left if part >= 0 else self.neither(left))
                if not found:
                    break
            alternatives.append(found)
        self.work.deeper(-1)
        return alternatives[0] if len(alternatives) == 1 else self.either(alternatives)

    def after_atom(self, number: int, letter: int, before: int) -> Formula:
        key = (number, letter, before)
        if key not in self.known:
            self.work.take(1)
            self.known[key] = self._after(*self.atoms[number], letter, before)
        return self.known[key]

    def _after(self, node: Node, rest: Formula, letter: int, before: int) -> Formula:
        match node.kind:
            case "set":
                return rest if self.masks[node] >> letter & 1 else NEVER
            case "cat":
                first, *more = node.parts
                self.work.take(len(more) // 8)
                return self.after(
                    self.then(first, self.then(self.nodes.cat(more), rest)), letter, before
                )
            case "alt":
                parts = [self.then(part, rest) for part in node.parts]
                return self.either([self.after(part, letter, before) for part in parts])
            case "repeat":
                left = self.after(self.once(node, rest), letter, before)
                return left if node.least else self.either([left, self.after(rest, letter, before)])
            case "start":
                return self.after(rest, letter, before) if before == START else NEVER
            case "boundary":
                is_word = bool(self.read.word >> letter & 1)
                here = ((before == WORD) != is_word) != node.negated
                return self.after(rest, letter, before) if here else NEVER
        return NEVER  # end

    def once(self, node: Node, rest: Formula) -> Formula:
        """A repetition as its first time, then the others."""
        least, most = max(0, node.least - 1), None if node.most is None else node.most - 1
        others = self.nodes.repeat(node.parts[0], least, most)
        return self.then(node.parts[0], self.then(others, rest))

    def ends(self, formula: Formula, before: int) -> bool:
        """Whether the formula holds for an empty text."""
        self.work.deeper(1)
        found = any(
            all(self.atom_ends(max(part, ~part), before) == (part >= 0) for part in parts)
            for parts in formula
        )
        self.work.deeper(-1)
        return found

    def atom_ends(self, number: int, before: int) -> bool:
        self.work.take(1)
        node, rest = self.atoms[number]
        match node.kind:
            case "start":
                return before == START and self.ends(rest, before)
            case "boundary":
                return (before == WORD) != node.negated and self.ends(rest, before)
            case "repeat" if node.nullable and not node.plain:
                if node.least == 0 and self.ends(rest, before):
                    return True
                return self.ends(self.once(node, rest), before)
        return node.kind == "end" or (node.nullable and self.ends(rest, before))

    def text(self, formula: Formula, words: Words) -> str | None:
        """A formula as an expression, as it was written; None if it has look-around."""
        found, atoms = None, list[int]()
        while len(formula) == 1:
            (parts,) = formula
            if not parts:
                found = words.anything()
                break
            part, *more = parts
            if more or part < 0:
                break
            if part in self.texts:
                found = self.texts[part]
                break
            atoms.append(part)
            node, formula = self.atoms[part]
            if not node.plain:
                break
        for part in reversed(atoms):
            node = self.atoms[part][0]
            if node.kind == "end":
                found = ""
            elif found is not None:
                found = words.text(node) + found
            self.texts[part] = found
        return found

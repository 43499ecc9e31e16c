"""Look-ahead and word boundaries in regular expressions, which xgrammar does not follow.

Promises: an expression with look-around becomes one without it, or a grammar, for exactly the same
texts: each as a whole, and with `.`, `\\d`, `\\w` and `\\s` as xgrammar reads them. Any other
expression stays as it is. Refuses what takes more than `WORK` steps, for all expressions of a
constraint together, and look-ahead that Python's parser or parsing.py cannot read: in a schema's
patterns xgrammar skips it, and says so only in a log.

work.py      counts the steps
parsing.py   reads an expression
formulas.py  what is left of it after each character, which makes it an automaton
automata.py  writes an automaton as an expression, or as a grammar
"""

import re

from predict.constraints.lookaround import automata, formulas, parsing
from predict.constraints.lookaround.work import TOO_MUCH, WORK, LookAroundError, Work

__all__ = ["WORK", "LookAroundError", "Work", "appears", "as_expression", "as_grammar"]

# Look-around; or an escape or a set, which may only look like it
LOOKS = re.compile(r"(?P<ahead>\(\?[=!])|(?P<boundary>\\[bB])|\\.|\[(?:\\.|[^\]\\])*", re.DOTALL)


def appears(text: str) -> bool:
    """Whether a regular expression, or JSON text with some, may contain look-around."""
    return any(one in text for one in ("(?=", "(?!", "\\b", "\\B"))


def as_expression(regex: str, work: Work, in_string: bool = False) -> str:
    """The expression without look-around, for a text or for a string in JSON (`in_string`)."""
    found = _automaton(regex, work, automata.Words(), in_string)
    return regex if found is None else automata.expression(*found)


def as_grammar(regex: str, work: Work) -> str | None:
    """The expression in EBNF, which xgrammar follows in a thousandth of the time; None if it has no
    look-around."""
    found = _automaton(regex, work, automata.EbnfWords(), False)
    return None if found is None else automata.grammar(*found)


def _automaton(
    regex: str, work: Work, words: automata.Words, in_string: bool
) -> tuple[automata.Automaton, automata.Words] | None:
    if not appears(regex):
        return None
    work.depth = 0
    try:
        read = parsing.read(regex, work, in_string)
        if read.plain:  # `[\b]`, `\\b`
            return None
        return formulas.automaton(read, work, words).minimized(work), words
    except LookAroundError:
        raise
    except Exception as error:  # also from Python's private parser, should that change
        looks = {part.lastgroup for part in LOOKS.finditer(regex)} - {None}
        if isinstance(error, RecursionError) and looks:
            raise LookAroundError(TOO_MUCH) from None
        if "ahead" in looks:
            raise LookAroundError(
                "has look-ahead in an expression that cannot be read with it; use JavaScript's "
                "syntax, no flags, back-references or look-behind, and repeat nothing that may be "
                "empty"
            ) from error
        return None

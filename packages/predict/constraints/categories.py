"""Unicode's general categories in a regular expression (`\\p{L}`, `\\P{Nd}`), which xgrammar cannot
read: in brackets it takes them for the letters p, L and {, and says so only in a log.

Promises: each category becomes its ranges, in the planes that have characters; everything else
stays as it is. The first one takes a tenth of a second, to go through all of Unicode (`table`).
Refuses a name that is not a category, and more than `MOST` of them: `L` alone is 10 kB of ranges.
"""

import functools
import re
import unicodedata

from predict.constraints.ranges import complement

LAST = 0x323AF  # the last assigned character, apart from tags and private use

MOST = 8  # in a constraint

# An escape, a bracket, or any other character.
PART = re.compile(r"\\[pP]\{(?P<name>[^{}]*)\}|\\.|[\[\]]|[^\\\[\]]+", re.DOTALL)


class CategoryError(ValueError):
    """Why a regular expression is refused: the end of a sentence about it."""


def appear(text: str) -> bool:
    """Whether a regular expression, or JSON text with some, may contain categories."""
    return "\\p{" in text or "\\P{" in text


class Spelling:
    """Replaces the categories of one constraint."""

    def __init__(self) -> None:
        self.count = 0

    def regex(self, regex: str) -> str:
        within, found = False, list[str]()
        for part in PART.finditer(regex):
            text = part[0]
            if part["name"] is not None:
                self.count += 1
                if self.count > MOST:
                    raise CategoryError(f"has more than {MOST} categories such as \\p{{L}}")
                text = ranges(part["name"], negated=text[1] == "P")
                text = text if within else f"[{text}]"
            elif text == "[":
                within = True
            elif text == "]":
                within = False
            found.append(text)
        return "".join(found)


@functools.cache
def table() -> dict[str, list[tuple[int, int]]]:
    """Category, of one letter or two → first and last characters of its ranges."""
    found: dict[str, list[tuple[int, int]]] = {}
    for code in range(LAST + 1):
        category = unicodedata.category(chr(code))
        for name in (category[0], category):
            own = found.setdefault(name, [])
            if own and own[-1][1] == code - 1:
                own[-1] = (own[-1][0], code)
            else:
                own.append((code, code))
    return found


def ranges(name: str, negated: bool) -> str:
    own = table().get(name)
    if own is None or name in ("C", "Cn", "Cs", "Cc", "Co"):
        raise CategoryError(
            f"has \\p{{{name[:20]}}}; use a general category, of one letter or two, as in \\p{{L}}"
        )
    if negated:
        own = [*complement(tuple(own))]
    return "".join(
        escaped(first) if first == last else f"{escaped(first)}-{escaped(last)}"
        for first, last in own
    )


def escaped(code: int) -> str:
    return f"\\u{{{code:X}}}"

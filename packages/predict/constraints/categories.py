"""Unicode's general categories in a regular expression (`\\p{L}`, `\\P{Nd}`), which xgrammar cannot
read: in brackets it takes the letters p, L and { for what is meant, and says so in a log only.

Promises: each becomes the ranges it stands for, of the planes that have characters; everything else
stays as it is. A name that is not a category's is refused, and so are more than `MOST`, for `L` is
10 kB of ranges. The first one takes a tenth of a second, for all of Unicode is looked at (`table`).
"""

import functools
import re
import unicodedata

from predict.constraints.ranges import complement

LAST = 0x323AF  # of the assigned characters, but for tags and private ones

MOST = 8  # of a constraint

# An escape, a bracket, or any other character.
PART = re.compile(r"\\[pP]\{(?P<name>[^{}]*)\}|\\.|[\[\]]|[^\\\[\]]+", re.DOTALL)


class CategoryError(ValueError):
    """The end of a sentence about the regular expression."""


def appear(text: str) -> bool:
    """Whether a regular expression, or a JSON text of some, may have categories."""
    return "\\p{" in text or "\\P{" in text


class Spelling:
    """Of one constraint."""

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
    """Name, of one letter or two → first and last characters of its ranges."""
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

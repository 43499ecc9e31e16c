"""What was ignored in a request or left out, for the response header `X-Ignored-Parameters`.

Promises: names are paths into the request, such as `num_ctx` or `messages[2].reasoning_content`,
separated by a comma and a space, each once, in the order of the request; at most `MOST` of them,
then `+N` for the rest. A character that a header cannot have is percent-encoded.
"""

from collections.abc import Iterable
from urllib.parse import quote

HEADER = b"x-ignored-parameters"
MOST = 20  # names in the header
MOST_CHARACTERS = 100  # of one name
MOST_KEPT = 400  # characters; a longer name is cut, with a hash to tell it from others
SAFE = "[]._-$/:{}()'\"+*#@! =?<>|~^`&"  # everything printable but comma and percent


class Notes:
    """Collects the names while a request is read, and whether its calls must arrive whole."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.whole_calls = False  # whole_calls.py

    def add(self, *names: str) -> None:
        self.names.update(dict.fromkeys(map(_short, names)))

    def __bool__(self) -> bool:
        return bool(self.names)


def _short(name: str) -> str:
    """A name that takes little memory: names are kept until the answer ends."""
    return name if len(name) <= MOST_KEPT else f"{name[:MOST_CHARACTERS]}{hash(name)}"


def header_value(names: Iterable[str]) -> bytes:
    every = list(names)
    shown = [quote(name[:MOST_CHARACTERS], safe=SAFE) for name in every[:MOST]]
    if len(every) > MOST:
        shown.append(f"+{len(every) - MOST}")
    return ", ".join(shown).encode("ascii")

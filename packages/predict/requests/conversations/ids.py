"""Ids of tool calls as tokenizers of v3 to v11 take them: nine letters or digits.

Promises: an id of nine stays. Every other id becomes nine characters by its position among the
others, so that the same id is the same everywhere in a request, no two become alike, and what
clients call their calls does not change the prompt. Ids in an answer are vLLM's own and stay.
"""

import functools
import hashlib
import re
import string
from collections.abc import Iterable

NINE = re.compile(r"[a-zA-Z0-9]{9}")
DIGITS = string.digits + string.ascii_letters


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """The ids that have to change, in the order of the request → what they become."""
    every = list(dict.fromkeys(ids))
    taken = {name for name in every if NINE.fullmatch(name)}
    short: dict[str, str] = {}
    number = 0
    for name in every:
        if name in taken:
            continue
        while (candidate := _numbered(number)) in taken:
            number += 1
        short[name] = candidate
        number += 1
    return short


@functools.cache
def _numbered(number: int) -> str:
    """Nine characters that look like one of Mistral's ids."""
    value = int.from_bytes(hashlib.sha256(b"call %d" % number).digest()[:8])
    characters = []
    for _ in range(9):
        value, digit = divmod(value, len(DIGITS))
        characters.append(DIGITS[digit])
    return "".join(characters)

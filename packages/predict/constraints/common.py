"""What many schemas have, for process.py to compile in advance.

xgrammar's compiler keeps the masks of what it has compiled, also as a part of something else. A
text of at most 100 characters has 100 states, each a mask of the whole vocabulary, 25 ms for the
131,072 tokens of Pixtral's (GitHub mlc-ai/xgrammar #852): all that end in the same count are one.
It keeps each schema as well, 32 kB a state, so that fewer and larger steps take less memory.
"""

from collections.abc import Iterator
from typing import Any

FORMATS = ("email", "date-time", "date", "time", "uuid", "uri", "ipv4", "hostname")
# Beyond this count xgrammar 0.2.8 makes something else of a repetition, of which nothing is shared.
LONGEST = 127
STEP = 8
LEAST = 5  # of the least counts; a larger one is rare


def schemas() -> Iterator[dict[str, Any]]:
    """Each takes up to some 0.2 s more than those before it."""
    text = {"type": "string"}
    yield text
    yield {"type": "object", "properties": {"a": text, "b": {"type": "number"}}}
    yield {"type": "array", "items": {"anyOf": [text, {"type": "integer"}, {"type": "boolean"}]}}
    yield {}
    for name in FORMATS:
        yield {**text, "format": name}
    for count in range(1, LEAST + 1):
        yield {**text, "minLength": count}
    for count in (*range(STEP, LONGEST, STEP), LONGEST):
        yield {**text, "maxLength": count}

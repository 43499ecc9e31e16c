"""What many schemas have in common, for process.py to compile in advance.

xgrammar's compiler caches the masks of what it has compiled, also for use as a part of something
else. A text of at most 100 characters has 100 states, each with a mask of the whole vocabulary, 25
ms for the 131,072 tokens of Pixtral's (GitHub mlc-ai/xgrammar #852): all that end in the same count
share one. It also caches each schema, 32 kB per state, so fewer and larger steps take less memory.
"""

from collections.abc import Iterator
from typing import Any

FORMATS = ("email", "date-time", "date", "time", "uuid", "uri", "ipv4", "hostname")
# Beyond this count xgrammar 0.2.8 compiles a repetition differently, and shares nothing of it.
LONGEST = 127
STEP = 8
LEAST = 5  # minimum counts up to this; larger ones are rare


def schemas() -> Iterator[dict[str, Any]]:
    """The schemas; each takes up to some 0.2 s more than those before it."""
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

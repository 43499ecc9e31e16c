"""A plugin of `vllm serve --tool-parser-plugin`: Mistral's tool parser, not built anew each time,
and not kept for ever.

vLLM makes a tool parser for each chat request, and another one for a stream. Each compiles a
regular expression for every special token, of which these tokenizers have 750 to 1000: more than
the `regex` package remembers, and tens of milliseconds of the API server, which does one thing at
a time. What becomes of them depends on the tokenizer alone; here it is made once.

The parser of a tokenizer before v11 also has a coroutine that has the parser. They refer to each
other through ijson's, which is written in C and hides that from Python's collector: 40 KB of the
API server for each chat request, never given back. Here the coroutine has a weak reference.

Promises: the same parser, the same answers. A vLLM that has no such function any more is left as
it is.
"""

import weakref
from collections.abc import Callable
from typing import Any

from vllm.parser.engine import streaming_parser_engine
from vllm.parser.mistral import MistralParser

Build = Callable[[Any, Any], Any]


def remembered(build: Build) -> Build:
    """`build(config, tokenizer)`, called once for each pair, which is kept with the result."""
    made: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    def once(config: Any, tokenizer: Any) -> Any:
        key = (id(config), id(tokenizer))
        if key not in made:
            made[key] = (config, tokenizer, build(config, tokenizer))
        return made[key][2]

    return once


def weakly(start: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`start(self)`, of a coroutine that does not keep `self`, which keeps it."""
    return lambda self: start(weakref.proxy(self))


for owner, name, better in (
    (streaming_parser_engine, "_build_drop_info", remembered),
    (MistralParser, "update_stream_state_pre_v11_tokenizer", weakly),
):
    if hasattr(owner, name):
        setattr(owner, name, better(getattr(owner, name)))

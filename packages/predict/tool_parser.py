"""A plugin of `vllm serve --tool-parser-plugin`: Mistral's tool parser, not built anew each time.

vLLM makes a tool parser for each chat request, and another one for a stream. Each compiles a
regular expression for every special token, of which these tokenizers have 750 to 1000: more than
the `regex` package remembers, and tens of milliseconds of the API server, which does one thing at
a time. What becomes of them depends on the tokenizer alone; here it is made once.

Promises: the same parser, the same answers. A vLLM that has no such function any more is left as
it is.
"""

from collections.abc import Callable
from typing import Any

from vllm.parser.engine import streaming_parser_engine

FUNCTION = "_build_drop_info"

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


if hasattr(streaming_parser_engine, FUNCTION):
    build = getattr(streaming_parser_engine, FUNCTION)
    setattr(streaming_parser_engine, FUNCTION, remembered(build))

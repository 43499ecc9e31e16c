"""A plugin of `vllm serve --tool-parser-plugin`: Mistral's tool parser, not rebuilt each time, and
not kept for ever.

vLLM makes a tool parser for each chat request, and another one for a stream. Each compiles a
regular expression for every special token, of which these tokenizers have 750 to 1000: more than
the `regex` package caches, and tens of milliseconds of the API server, which does one thing at a
time. The result depends only on the tokenizer; here it is made once.

The parser of a tokenizer before v11 also holds a coroutine that holds the parser. The cycle goes
through ijson's coroutine, which is written in C and hides it from Python's collector: 40 KB of the
API server for each chat request, never freed. Here the coroutine has a weak reference.

A request without tools gets no parser if its tokenizer's parser would pass the text on unchanged:
vLLM would make two for each request, and call one for each piece of a stream.

A call in a stream begins with its name; OpenAI's API has `"arguments": ""` there, and Mistral's own
clients fail without it.

Promises: the same parser, and the same answers except for that `""`. A vLLM without such a function
is left unchanged.
"""

import weakref
from collections.abc import Callable
from typing import Any

from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.parser.engine import streaming_parser_engine
from vllm.parser.mistral import MistralParser

Build = Callable[[Any, Any], Any]

GRAMMAR_VERSION = 11  # from here on, tokenizers have reasoning marks, which a parser removes


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
    """`start(self)` for a coroutine that does not keep `self`, which keeps it."""
    return lambda self: start(weakref.proxy(self))


def with_arguments(extract: Callable[..., Any]) -> Callable[..., Any]:
    """`extract(self, …)`: a delta of a stream, whose calls have arguments from the first one on."""

    def extracted(self: Any, *given: Any, **named: Any) -> Any:
        delta = extract(self, *given, **named)
        for call in delta.tool_calls if delta is not None else ():
            if call.function is not None and call.function.name and call.function.arguments is None:
                call.function.arguments = ""
        return delta

    return extracted


def for_tools(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make(self, request, tokenizer, …)`: a parser; None, as without a tool parser, if it would
    have nothing to do."""

    def made(self: Any, request: Any, tokenizer: Any, *given: Any, **named: Any) -> Any:
        plain = (
            not request.tools
            and request.include_reasoning
            and self.parser_cls.reasoning_parser_cls is None
            and getattr(tokenizer, "version", GRAMMAR_VERSION) < GRAMMAR_VERSION
        )
        return None if plain else make(self, request, tokenizer, *given, **named)

    return made


for owner, name, better in (
    (streaming_parser_engine, "_build_drop_info", remembered),
    (MistralParser, "update_stream_state_pre_v11_tokenizer", weakly),
    (MistralParser, "extract_tool_calls_streaming", with_arguments),
    (OpenAIServingChat, "_make_parser", for_tools),
):
    if hasattr(owner, name):
        setattr(owner, name, better(getattr(owner, name)))

"""Work that vLLM's API server repeats for every token of every stream, done once.

It asks Mistral's tokenizer, which is Python, for the piece of each token and for the text of two
short windows of pieces, its largest share of CPU; and it reads an environment variable. The answers
depend on the vocabulary alone, and most come again; the environment does not change any more.

Promises: the same text. What is kept is bounded. A vLLM without these names is left as it is.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

PIECES = 2**16  # single tokens that are remembered; most vocabularies whole
WINDOWS = 2**14  # short runs of pieces whose text is remembered, about 5 MB
WINDOW = 4  # pieces; a window is longer only while bytes of one character are missing

Convert = Callable[..., Any]


def pieces_remembered(convert: Convert) -> Convert:
    """`convert_ids_to_tokens(self, ids, skip_special_tokens)`, of single ids from memory."""

    @functools.lru_cache(PIECES)
    def of_one(tokenizer: Any, token: int, skip_special_tokens: bool) -> tuple[Any, ...]:
        return tuple(convert(tokenizer, [token], skip_special_tokens))

    @functools.wraps(convert)
    def convert_ids_to_tokens(
        self: Any, ids: Sequence[int], skip_special_tokens: bool = False
    ) -> list[Any]:
        if len(ids) == 1:
            return [*of_one(self, ids[0], skip_special_tokens)]
        return list(convert(self, ids, skip_special_tokens))

    return convert_ids_to_tokens


def text_remembered(convert: Convert) -> Convert:
    """`convert_tokens_to_string(self, tokens)`, of short runs from memory."""

    @functools.lru_cache(WINDOWS)
    def of_few(tokenizer: Any, tokens: tuple[Any, ...]) -> str:
        return str(convert(tokenizer, [*tokens]))

    @functools.wraps(convert)
    def convert_tokens_to_string(self: Any, tokens: Sequence[Any]) -> str:
        if len(tokens) <= WINDOW:
            return of_few(self, tuple(tokens))
        return str(convert(self, tokens))

    return convert_tokens_to_string


def install() -> None:
    """Called in the API server, once vLLM has read its settings."""
    from vllm import envs
    from vllm.tokenizers.mistral import MistralTokenizer

    if hasattr(envs, "enable_envs_cache"):  # as vLLM itself does in its engine
        envs.enable_envs_cache()
    for name, better in (
        ("convert_ids_to_tokens", pieces_remembered),
        ("convert_tokens_to_string", text_remembered),
    ):
        if hasattr(MistralTokenizer, name):
            setattr(MistralTokenizer, name, better(getattr(MistralTokenizer, name)))

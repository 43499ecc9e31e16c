"""Does once what vLLM's API server repeats for every token of every stream.

vLLM asks Mistral's tokenizer, which is Python, for the piece of each token and for the text of two
short windows of pieces: its largest share of CPU; and for the text of each token whose log
probability is requested, up to 21 for each token of an answer. It also reads an environment
variable. The answers depend only on the vocabulary, and most come again; the environment no longer
changes. While the text of an answer ends within a character, vLLM takes all tokens since then again
with each new one: for thousands of bytes that never become a character, milliseconds each. And
mistral-common decodes each prompt that it makes, in Python, for a field that nobody reads: most of
the time that a prompt takes.

Promises: the same text, except in that field; of bytes that are no character, BEHIND wait for one
at most. What is kept is bounded. A vLLM without these names is left
unchanged.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

PIECES = 2**16  # single tokens that are cached; enough for most vocabularies
WINDOWS = 2**14  # short runs of pieces whose text is cached, about 5 MB
BEHIND = 8  # tokens …
UNFINISHED = 3  # … of which as many may be the beginning of a character, which has four bytes
WINDOW = 4  # pieces; a window is longer only while bytes of one character are missing

Convert = Callable[..., Any]


def one_remembered(convert: Convert) -> Convert:
    """`convert(self, ids, skip_special_tokens)`, to pieces or to text, with a cache for single
    ids."""

    @functools.lru_cache(PIECES)
    def of_one(tokenizer: Any, token: int, skip_special_tokens: bool) -> Any:
        return convert(tokenizer, [token], skip_special_tokens)

    @functools.wraps(convert)
    def converted(self: Any, ids: Any, skip_special_tokens: bool = False) -> Any:
        if isinstance(ids, list) and len(ids) == 1 and type(ids[0]) is int:
            found = of_one(self, ids[0], skip_special_tokens)
            return [*found] if isinstance(found, list) else found
        return convert(self, ids, skip_special_tokens)

    return converted


def text_remembered(convert: Convert) -> Convert:
    """`convert_tokens_to_string(self, tokens)`, with a cache for short runs."""

    @functools.lru_cache(WINDOWS)
    def of_few(tokenizer: Any, tokens: tuple[Any, ...]) -> str:
        return str(convert(tokenizer, [*tokens]))

    @functools.wraps(convert)
    def convert_tokens_to_string(self: Any, tokens: Sequence[Any]) -> str:
        if len(tokens) <= WINDOW:
            return of_few(self, tuple(tokens))
        return str(convert(self, tokens))

    return convert_tokens_to_string


def caught_up(detokenize: Convert) -> Convert:
    """`detokenize_incrementally`, which does not wait for a character longer than one can take."""

    @functools.wraps(detokenize)
    def detokenized(
        tokenizer: Any,
        all_input_ids: Any,
        prev_tokens: Any,
        prefix_offset: int,
        read_offset: int,
        *given: Any,
        **named: Any,
    ) -> Any:
        found = detokenize(
            tokenizer, all_input_ids, prev_tokens, prefix_offset, read_offset, *given, **named
        )
        new, text = found[:2]
        if text or prev_tokens is None or len(prev_tokens) + len(new) - read_offset < BEHIND:
            return found
        window, written = [*prev_tokens[prefix_offset:], *new], read_offset - prefix_offset
        string = tokenizer.convert_tokens_to_string
        whole = string(window)
        for end in range(len(window) - UNFINISHED, written, -1):
            if string(window[:end]) + string(window[end:]) == whole:  # no character is cut there
                break
        else:
            if len(window) - written < 2 * BEHIND:
                return found
            end = len(window)
        text = string(window[:end])[len(string(window[:written])) :]
        return new, text, read_offset, prefix_offset + end

    return detokenized


_making = threading.local()  # `prompt`: this thread is making one


def without_text(make: Convert) -> Convert:
    """`encode_chat_completion(self, request, …)`, without decoding."""

    @functools.wraps(make)
    def encode_chat_completion(self: Any, *given: Any, **named: Any) -> Any:
        _making.prompt = True
        try:
            return make(self, *given, **named)
        finally:
            _making.prompt = False

    return encode_chat_completion


def unless_making(decode: Convert) -> Convert:
    """`decode(self, tokens, …)`; None while a prompt is made, which mistral-common's field
    allows."""

    @functools.wraps(decode)
    def decoded(self: Any, *given: Any, **named: Any) -> Any:
        return None if getattr(_making, "prompt", False) else decode(self, *given, **named)

    return decoded


def install() -> None:
    """Call in the API server, once vLLM has read its settings."""
    from mistral_common.tokens.tokenizers.instruct import InstructTokenizerBase
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer as Prompts
    from vllm import envs
    from vllm.tokenizers.mistral import MistralTokenizer
    from vllm.v1.engine import detokenizer

    if hasattr(envs, "enable_envs_cache"):  # as vLLM itself does in its engine
        envs.enable_envs_cache()
    for of, name, better in (
        (MistralTokenizer, "convert_ids_to_tokens", one_remembered),
        (MistralTokenizer, "convert_tokens_to_string", text_remembered),
        (MistralTokenizer, "decode", one_remembered),
        (detokenizer, "detokenize_incrementally", caught_up),
        (Prompts, "encode_chat_completion", without_text),
        (InstructTokenizerBase, "decode", unless_making),
    ):
        if hasattr(of, name):
            setattr(of, name, better(getattr(of, name)))

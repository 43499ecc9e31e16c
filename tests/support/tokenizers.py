"""The cards' tokenizers; loading one takes seconds."""

import functools

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from deploy import cards
from local.standins import cache
from local.standins.corpus import Tokenizer


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    return MistralTokenizer.from_file(str(cache.tokenizer_path(cards.load(name))))

"""What is remembered of a tokenizer gives the text that it would give itself."""

import copy
import random
import shutil
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerBase
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer as Prompts
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from predict import per_token
from vllm.tokenizers.detokenizer_utils import (
    convert_ids_list_to_tokens,
    convert_prompt_ids_to_tokens,
    detokenize_incrementally,
)
from vllm.tokenizers.mistral import MistralTokenizer

from deploy import cards
from deploy.paths import ROOT
from local.standins import cache

TEXT = (ROOT / "docs" / "requests.md").read_text()[:4000] + " été Ünïcode 漢字 😀 [TOOL_CALLS] </s>"


class Remembering(MistralTokenizer):  # type: ignore[misc]
    convert_ids_to_tokens = per_token.one_remembered(MistralTokenizer.convert_ids_to_tokens)
    convert_tokens_to_string = per_token.text_remembered(MistralTokenizer.convert_tokens_to_string)
    decode = per_token.one_remembered(MistralTokenizer.decode)


def text(
    tokenizer: Any,
    ids: list[int],
    skip_special_tokens: bool,
    detokenize: Any = detokenize_incrementally,
) -> list[str]:
    """The text of each token, as vLLM's detokenizer takes it from the tokenizer."""
    tokens, prefix, read = convert_prompt_ids_to_tokens(tokenizer, ids[:4], skip_special_tokens)
    found = []
    for end in range(5, len(ids) + 1):
        new, piece, prefix, read = detokenize(
            tokenizer, ids[:end], tokens, prefix, read, skip_special_tokens
        )
        tokens.extend(new)
        found.append(piece)
    return found


@pytest.fixture(scope="module", params=cards.names())
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    card, folder = cards.load(request.param), tmp_path_factory.mktemp("tokenizer")
    (name,) = [file for file in card.weights.files if file.startswith(("tokenizer", "tekken"))]
    shutil.copy(cache.tokenizer_path(card), folder / name)  # alone in its folder
    return MistralTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("skip_special_tokens", [True, False])
def test_the_text_of_every_token_is_the_same(plain: Any, skip_special_tokens: bool) -> None:
    remembering = copy.copy(plain)  # another one, of which nothing is remembered
    remembering.__class__ = Remembering
    ids = plain.encode(TEXT)
    dice = random.Random(1)
    for sequence in (ids, [dice.randrange(len(plain)) for _ in range(600)], [*range(600)]):
        expected = text(plain, sequence, skip_special_tokens)
        for _ in range(2):  # what is asked first, and what is remembered
            assert text(remembering, sequence, skip_special_tokens) == expected
    caught_up = per_token.caught_up(detokenize_incrementally)
    assert text(plain, ids, skip_special_tokens, caught_up) == text(plain, ids, skip_special_tokens)


def test_bytes_that_are_no_character_do_not_keep_the_text_waiting(plain: Any) -> None:
    byte = next(i for i in range(len(plain)) if plain.decode([i]) == "\ufffd")
    ids = [*plain.encode("a b"), *[byte] * 100, *plain.encode("c d")[1:]]
    windows = []

    class Counting(Remembering):
        def convert_tokens_to_string(self, tokens: Any) -> str:
            windows.append(len(tokens))
            return str(super().convert_tokens_to_string(tokens))

    counting = copy.copy(plain)
    counting.__class__ = Counting
    pieces = text(counting, ids, True, per_token.caught_up(detokenize_incrementally))
    assert "".join(pieces) == "".join(text(plain, ids, True))
    assert max(windows) <= 2 * per_token.BEHIND


def test_text_that_cannot_be_divided_does_not_wait_for_ever() -> None:
    windows = []

    class Indivisible:
        """Its text is one character, however many tokens have it."""

        is_fast = True

        def convert_ids_to_tokens(self, ids: list[int], skip_special_tokens: bool) -> list[str]:
            return [str(one) for one in ids]

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            windows.append(len(tokens))
            return "\ufffd" if tokens else ""

        def __len__(self) -> int:
            return 9

    text(Indivisible(), [1] * 200, True, per_token.caught_up(detokenize_incrementally))
    assert max(windows) <= 4 * per_token.BEHIND


def test_characters_among_such_bytes_are_not_lost(plain: Any) -> None:
    dice = random.Random(1)
    parts = [i for i in range(len(plain)) if "\ufffd" in plain.decode([i])][:300]
    words = plain.encode("中文 é 😀 a b")[1:]
    for _ in range(100):
        ids = plain.encode("a")
        for _ in range(8):
            ids += dice.choices(parts, k=dice.randrange(12))
            ids += words[dice.randrange(len(words)) :]
        ids += plain.encode("the end")[1:]
        pieces = text(plain, ids, True, per_token.caught_up(detokenize_incrementally))
        assert "".join(pieces) == "".join(text(plain, ids, True))


def test_the_text_beside_each_log_probability_is_the_same(plain: Any) -> None:
    remembering = copy.copy(plain)
    remembering.__class__ = Remembering
    ids = [*plain.encode(TEXT), *range(600), len(plain) - 1]
    expected = convert_ids_list_to_tokens(plain, ids)
    for _ in range(2):
        assert convert_ids_list_to_tokens(remembering, ids) == expected
    for skip in (True, False):
        assert remembering.decode(ids, skip_special_tokens=skip) == plain.decode(ids, skip)
        assert remembering.decode([1], skip) == plain.decode([1], skip)  # BOS
        assert remembering.decode(ids[5], skip) == plain.decode(ids[5], skip)
        assert remembering.decode([[5], [6]], skip) == plain.decode([[5], [6]], skip)


def test_a_single_token_is_decoded_once() -> None:
    asked = []

    def decode(self: Any, ids: Any, skip_special_tokens: bool) -> str:
        asked.append(ids)
        return f"{ids} {skip_special_tokens}"

    remembered = per_token.one_remembered(decode)
    for _ in range(2):
        assert remembered("tokenizer", [7]) == "[7] False"
        assert remembered("tokenizer", [7], skip_special_tokens=True) == "[7] True"
        assert remembered("tokenizer", [7, 8]) == "[7, 8] False"
    assert asked == [[7], [7], [7, 8], [7, 8]]


def test_what_is_handed_out_may_be_changed() -> None:
    convert = per_token.one_remembered(lambda self, ids, skip: [f"{ids[0]}"])
    convert("tokenizer", [7]).append("more")
    assert convert("tokenizer", [7]) == ["7"]
    assert convert("tokenizer", [8]) == ["8"]


def test_long_runs_are_not_remembered() -> None:
    asked = []

    def convert(self: Any, tokens: Any) -> str:
        asked.append(len(tokens))
        return "".join(tokens)

    remembered = per_token.text_remembered(convert)
    for tokens in (["a"] * per_token.WINDOW, ["a"] * (per_token.WINDOW + 1)):
        for _ in range(2):
            assert remembered("tokenizer", tokens) == "".join(tokens)
    assert asked == [per_token.WINDOW, per_token.WINDOW + 1, per_token.WINDOW + 1]


def test_a_prompt_is_made_of_the_same_tokens_and_its_text_is_not(
    plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [{"role": "user", "content": TEXT}]
    expected = plain.apply_chat_template(messages)
    decoded = plain.instruct.decode(expected)
    for of, name, better in (
        (Prompts, "encode_chat_completion", per_token.without_text),
        (InstructTokenizerBase, "decode", per_token.unless_making),
    ):
        monkeypatch.setattr(of, name, better(getattr(of, name)))
    made = []
    decode = SentencePieceTokenizer.decode

    def counted(*given: Any, **named: Any) -> Any:
        made.append(1)
        return decode(*given, **named)

    monkeypatch.setattr(SentencePieceTokenizer, "decode", counted)
    assert plain.apply_chat_template(messages) == expected
    assert made == []
    assert plain.instruct.decode(expected) == decoded


def test_vllm_has_the_methods_that_are_replaced() -> None:
    import vllm.envs

    assert callable(vllm.envs.enable_envs_cache)
    assert callable(MistralTokenizer.convert_ids_to_tokens)
    assert callable(MistralTokenizer.convert_tokens_to_string)
    assert callable(MistralTokenizer.decode)
    assert callable(Prompts.encode_chat_completion)
    assert callable(InstructTokenizerBase.decode)

"""vLLM's Mistral tool parser is built once, and is the same."""

import gc
import shutil
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from predict import tool_parser

from deploy import cards
from deploy.cards import Card
from local.standins import cache

WITH_TOOLS = [card for card in cards.load_all() if card.features.tools]


def test_a_pair_is_built_once_and_others_for_themselves() -> None:
    built: list[Any] = []

    def build(config: Any, tokenizer: Any) -> Any:
        built.append((config, tokenizer))
        return object()

    once = tool_parser.remembered(build)
    config, one, other = {"a": 1}, object(), object()  # as in vLLM, a config cannot be hashed
    assert once(config, one) is once(config, one)
    assert once(config, one) is not once(config, other)
    assert built == [(config, one), (config, other)]


@pytest.fixture(scope="module", params=WITH_TOOLS, ids=lambda card: card.name)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from vllm.tokenizers import get_tokenizer

    card: Card = request.param
    folder = tmp_path_factory.mktemp("tokenizer")
    (name,) = [file for file in card.weights.files if file.startswith(("tokenizer", "tekken"))]
    shutil.copy(cache.tokenizer_path(card), folder / name)
    return get_tokenizer(str(folder), tokenizer_mode="mistral")


def test_vllm_s_parsers_share_what_is_built(tokenizer: Any) -> None:
    from vllm.tool_parsers.mistral_tool_parser import MistralToolParser

    lexers = [MistralToolParser(tokenizer)._parser_engine._engine._lexer for _ in range(2)]
    assert lexers[0] is not lexers[1]
    assert lexers[0]._shape is lexers[1]._shape


def test_nothing_is_left_of_a_parser_that_nobody_has(tokenizer: Any) -> None:
    from vllm.tool_parsers.mistral_tool_parser import MistralToolParser

    parser = MistralToolParser(tokenizer)
    kept = weakref.ref(parser._parser_engine)
    del parser
    gc.collect()
    assert kept() is None


def test_the_first_delta_of_a_call_has_arguments(tokenizer: Any) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.mistral import MistralParser

    parser = MistralParser(tokenizer)
    request: Any = ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}])
    text = '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]'
    pieces = [text[:12], *text[12:]]
    calls: list[Any] = []
    before = ""
    for piece in pieces:
        ids = [parser.bot_token_id] if "[TOOL_CALLS]" in piece else []
        delta = parser.extract_tool_calls_streaming(
            before, before + piece, piece, [], ids, ids, request
        )
        before += piece
        calls += delta.tool_calls if delta else []
    named = [call for call in calls if call.function and call.function.name]
    assert [call.function.arguments for call in named if call.function] == [""]
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"a": 1}'


@pytest.mark.parametrize(
    ("asked", "version", "reasons", "made"),
    [
        ({}, 3, None, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 3, None, True),
        (
            {"include_reasoning": False},
            3,
            None,
            True,
        ),  # what vLLM then leaves out hangs on a parser
        ({}, 11, None, True),
        ({}, 3, object, True),
    ],
)
def test_a_request_has_a_parser_where_it_has_something_to_do(
    asked: dict[str, Any], version: int, reasons: type | None, made: bool
) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat

    parser = SimpleNamespace()
    serving: Any = SimpleNamespace(parser_cls=lambda *_, **__: parser, model_config=None)
    serving.parser_cls.reasoning_parser_cls = reasons
    request = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": "hi"}], **asked}
    )
    tokenizer: Any = SimpleNamespace(version=version)
    found = OpenAIServingChat._make_parser(serving, request, tokenizer, None)
    assert found is (parser if made else None)

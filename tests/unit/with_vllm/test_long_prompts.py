"""Which texts are longer than a model reads, with a tokenizer of words."""

from types import SimpleNamespace
from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from predict.long_prompts import (
    LONG,
    LONG_IDS,
    _if_short,
    are_long,
    are_longer,
    most_of,
    schemas_of,
    texts_of,
    written_anew,
)

from tests.support.tokenizers import tokenizer


def words(text: str) -> list[int]:
    return [0] * len(text.split())


@pytest.mark.parametrize(
    ("texts", "longer"),
    [
        (["a " * 1000], False),
        (["a " * 1001], True),
        (["a " * 500, "b " * 501], True),
        (["a " * 500, "b " * 500], False),
        (["a" * LONG * 3], False),  # one word, cut in three
        ([], False),
    ],
)
def test_texts_are_longer_only_if_their_pieces_are(texts: list[str], longer: bool) -> None:
    assert are_longer(texts, words, 1000) is longer


def test_a_long_text_is_read_no_further_than_the_model_would() -> None:
    read: list[int] = []

    def encode(text: str) -> list[int]:
        read.append(len(text))
        return words(text)

    assert are_longer(["a " * 1_000_000], encode, LONG)
    assert read == [LONG] * 3  # half as many words each, and less for the cut


@pytest.mark.parametrize(
    ("message", "texts", "written"),
    [
        ({"role": "user", "content": "one"}, ["one"], []),
        ({"role": "user", "content": [{"text": "one"}, {"text": "two"}]}, ["one", "two"], []),
        ({"role": "user", "content": [{"image_url": {"url": "data:…"}}]}, [], []),
        ({"role": "user", "content": None}, [], []),
        (
            {"role": "assistant", "content": "one", "tool_calls": [{"id": 1}]},
            ["one"],
            [[{"id": 1}]],
        ),
        ({"role": "tool", "content": '{"a": "\\u0431"}'}, [], ['{"a": "\\u0431"}']),
    ],
)
def test_what_of_a_message_is_in_the_prompt_as_it_is(
    message: dict[str, Any], texts: list[str], written: list[Any]
) -> None:
    """mistral-common reads a tool's result as JSON and writes it with fewer tokens."""
    assert list(texts_of([message])) == texts
    assert list(written_anew([message])) == written


def texts(count: int, length: int) -> list[Any]:
    return [{"prompt": "a" * length}] * count


def ids(count: int, length: int) -> list[Any]:
    return [{"prompt_token_ids": [1] * length}] * count


@pytest.mark.parametrize(
    ("prompts", "long"),
    [
        (texts(1, LONG), False),
        (texts(1, LONG + 1), True),
        (texts(2, LONG // 2), False),
        (texts(63, LONG // 2), True),
        (ids(4, LONG_IDS // 4), False),
        (ids(5, LONG_IDS // 4), True),
        ([b"embeddings"], False),
        ([], False),
    ],
)
def test_the_prompts_of_a_request_are_long_together(prompts: list[Any], long: bool) -> None:
    assert are_long(prompts) is long


def test_of_tools_the_schemas_count_as_they_are_in_the_prompt() -> None:
    schema = {"properties": {"été": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert schemas_of([tool]) == '[{"properties": {"été": {"type": "string"}}}]'
    assert schemas_of([{"function": {"name": "f"}}]) == "[null]"


def nested(depth: int, mark: str) -> dict[str, Any]:
    inner = nested(depth - 1, mark) if depth else {"type": "string", "description": f"été {mark}"}
    return {"type": "object", "properties": {"name": inner, mark: {"enum": [1, 2.5, None]}}}


@pytest.mark.parametrize("card", ["mistral-7b", "mistral-nemo-12b"])
@pytest.mark.parametrize(("count", "depth"), [(1, 0), (1, 40), (100, 0), (60, 3)])
def test_the_schemas_of_tools_have_no_more_tokens_than_the_prompt(
    card: str, count: int, depth: int
) -> None:
    """So what is refused for them alone is longer than the model reads."""
    functions = [{"name": f"f{n}", "parameters": nested(depth, f"a{n}")} for n in range(count)]
    tools = [{"type": "function", "function": function} for function in functions]
    made = tokenizer(card).encode_chat_completion(
        ChatCompletionRequest.from_openai([{"role": "user", "content": "Hi"}], tools=tools)
    )
    text = tokenizer(card).instruct_tokenizer.tokenizer
    schemas = text.encode(schemas_of(tools), bos=False, eos=False)
    assert len(schemas) < len(made.tokens)


def test_what_is_longer_by_its_tools_is_refused_before_it_is_made() -> None:
    tool = {"function": {"parameters": {"description": "a " * 1000}}}

    def make() -> None:
        raise AssertionError("made")

    words_only = SimpleNamespace(encode=lambda text, add_special_tokens: words(text))
    refused = pytest.importorskip("vllm.exceptions").VLLMValidationError
    with pytest.raises(refused, match="context length is 900 tokens"):
        _if_short(["Hi"], words_only, 900, make, [tool])
    assert _if_short(["Hi"], words_only, 1100, lambda: "made", [tool]) == "made"
    assert _if_short(["Hi"], words_only, None, lambda: "made", [tool]) == "made"


def test_what_vllm_counts_or_cuts_may_be_of_any_length() -> None:
    assert most_of(SimpleNamespace(truncate_prompt_tokens=None, max_total_tokens=5)) == 5
    assert most_of(SimpleNamespace(truncate_prompt_tokens=-1, max_total_tokens=5)) is None
    assert most_of(SimpleNamespace(truncate_prompt_tokens=None, max_total_tokens=None)) is None

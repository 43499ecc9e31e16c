"""Each field of vLLM's requests by which a client names a number, or as many things as it likes,
has a bound, or costs the same whatever it says: one that a new vLLM brings has to be put here."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from predict.legacy.parameters import REFUSED
from predict.requests.limits import COUNTED, NUMBERS
from predict.requests.work import REPEATING
from predict.settings import DEFAULT_LIMITS
from pydantic import BaseModel

from deploy import cards
from deploy.variables import predict_settings
from tests.support.vllm_requests import VLLM

# What bounds each, by the limits of limits.yaml, …
BOUNDED = {
    "n": "answers, work",
    "stop": "stop_strings, string_length, work",
    "stop_sequences": "stop_strings, string_length, work",
    "bad_words": "bad_words, string_length, bad_words_bytes, work",
    "logprobs": "logprobs, work",
    "top_logprobs": "logprobs, work",
    "logprob_token_ids": "token_ids, work",
    "prompt_logprobs": "prompt_logprobs, prompt_work",
    "allowed_token_ids": "token_ids, work",
    "stop_token_ids": "stop_tokens, work",
    "logit_bias": "token_ids, work",
    "repetition_detection": "repetition_tokens, work",
    "stream_interval": "stream_interval",
    "structured_outputs": "schema_bytes, schema_depth",
    "response_format": "schema_bytes, schema_depth",
    "text": "schema_bytes, schema_depth",
    "output_config": "schema_bytes, schema_depth",
    "tools": "tools, schema_bytes, schema_depth",
    "messages": "messages, parts, text_bytes",
    "input": "messages, parts, text_bytes",
    "system": "parts, text_bytes",
    "documents": "text_bytes, values",
    "metadata": "text_bytes, values",
    "include": "text_bytes, values",
    "tool_choice": "text_bytes, values",
    "tokens": "text_bytes",
}
# … by the model's context, which vLLM compares …
CONTEXT = {"max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "prompt"}
CONTEXT |= {"truncate_prompt_tokens", "thinking_token_budget"}
# … and what costs as much with any value.
CONSTANT = {"temperature", "top_p", "top_k", "min_p", "seed", "length_penalty"}
CONSTANT |= {"frequency_penalty", "presence_penalty", "repetition_penalty"}
CONSTANT |= {"stream_options", "max_tool_calls", "reasoning", "thinking"}

HARMLESS: tuple[Any, ...] = (bool, str, type(None))
# Of what is on or off, what repeats the prompt in each answer is bounded with `n`; the others cost
# the same for each token, or once for a request.
FLAGS = {*REPEATING, "add_generation_prompt", "add_special_tokens", "background"}
FLAGS |= {"continue_final_message", "enable_response_messages", "ignore_eos", "include_reasoning"}
FLAGS |= {"include_stop_str_in_output", "logprobs", "parallel_tool_calls", "return_prompt_text"}
FLAGS |= {"return_token_strs", "return_tokens_as_token_ids", "skip_special_tokens", "store"}
FLAGS |= {"spaces_between_special_tokens", "stream", "use_beam_search"}


def kinds(annotation: Any) -> Iterator[Any]:
    """The types that a field takes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from kinds(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from kinds(argument)
    elif origin is not typing.Literal:
        yield origin or annotation


def grows(annotation: Any) -> bool:
    return any(kind not in HARMLESS for kind in kinds(annotation))


def fields(path: str) -> dict[str, Any]:
    """Those of a route whose cost may grow."""
    models = [model for route, model, _ in VLLM if route == path]
    every = {row.alias or name: row for model in models for name, row in model.model_fields.items()}
    return {name: row for name, row in every.items() if grows(row.annotation)}


@pytest.mark.parametrize("path", sorted({path for path, _, _ in VLLM}))
def test_what_grows_with_what_a_client_says_is_bounded(path: str) -> None:
    assert fields(path).keys() <= BOUNDED.keys() | CONTEXT | CONSTANT | REFUSED.keys()


def test_every_field_that_is_on_or_off_was_looked_at() -> None:
    rows = [(name, row) for _, model, _ in VLLM for name, row in model.model_fields.items()]
    flags = {row.alias or name for name, row in rows if bool in kinds(row.annotation)}
    assert flags - REFUSED.keys() == FLAGS


def test_the_tables_have_no_field_that_is_gone_or_twice() -> None:
    every = {name for path, _, _ in VLLM for name in fields(path)}
    assert BOUNDED.keys() | CONTEXT | CONSTANT <= every
    assert len(BOUNDED) + len(CONTEXT) + len(CONSTANT) == len(BOUNDED.keys() | CONTEXT | CONSTANT)
    assert {name for row in BOUNDED.values() for name in row.split(", ")} <= DEFAULT_LIMITS.keys()


@pytest.mark.parametrize("name", BOUNDED)
def test_what_a_limit_counts_is_counted(name: str) -> None:
    counted = COUNTED.get(name) or NUMBERS.get(name)
    by_name = {*COUNTED.values(), *NUMBERS.values()} & {*BOUNDED[name].split(", ")}
    assert by_name == ({counted} if counted else set())


# The parts of what is an object, where each is bounded as the object is.
PARTS = {
    "repetition_detection": {"max_pattern_size", "min_pattern_size", "min_count"},
    "structured_outputs": {"json", "choice"},
    "stream_options": set[str](),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_an_object_are_decided_on_too(name: str) -> None:
    (row,) = {fields(path)[name].annotation for path, _, _ in VLLM if name in fields(path)}
    (kind,) = (kind for kind in kinds(row) if kind is not type(None))
    if issubclass(kind, BaseModel):
        parts = {name: part.annotation for name, part in kind.model_fields.items()}
    else:
        assert dataclasses.is_dataclass(kind)
        hints = typing.get_type_hints(kind)
        parts = {part.name: hints[part.name] for part in dataclasses.fields(kind)}
    assert {part for part, annotation in parts.items() if grows(annotation)} == PARTS[name]


def test_what_the_engine_has_room_for_is_what_it_is_given_at_most() -> None:
    """With one more vLLM's second model runner raises an error in the engine, which ends it."""
    from vllm.v1.worker.gpu.sample import logit_bias

    most = {name: limit for name, limit in DEFAULT_LIMITS.items() if limit is not None}
    assert most["token_ids"] <= logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS
    assert most["token_ids"] <= logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS
    own = 8  # that the model's configuration may add
    assert most["stop_tokens"] + own <= logit_bias.MAX_NUM_STOP_TOKEN_IDS
    variables = predict_settings(cards.load("mistral-7b"))
    # a word is read with a space before it and without, and has no more tokens than bytes and one
    room = int(variables["VLLM_MAX_BAD_WORDS_TOTAL_TOKENS"])
    assert 2 * (most["bad_words_bytes"] + most["bad_words"]) <= room


def test_vllm_takes_as_many_bad_words_as_a_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a vocabulary that has each with a space before it too, as Tekken's has."""
    from vllm import SamplingParams

    variables = predict_settings(cards.load("pixtral-12b"))
    monkeypatch.setenv("VLLM_MAX_NUM_BAD_WORDS", variables["VLLM_MAX_NUM_BAD_WORDS"])
    most = DEFAULT_LIMITS["bad_words"]
    assert most is not None
    words = [str(number) for number in range(most)]
    ids = {text: number for number, text in enumerate([*words, *(f" {word}" for word in words)])}
    tokenizer = SimpleNamespace(
        encode=lambda text, add_special_tokens: [ids[text]], max_token_id=len(ids)
    )
    params = SamplingParams(bad_words=words)
    params.update_from_tokenizer(tokenizer)
    assert params.bad_words_token_ids is not None
    assert len(params.bad_words_token_ids) == 2 * most

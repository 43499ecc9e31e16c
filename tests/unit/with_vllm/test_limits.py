"""What is too much for one request, and what is not for its sender to say."""

import json
from typing import Any

import pytest
from predict.errors import RequestError
from predict.legacy.parameters import HEADERS, REFUSED, REFUSED_PARTS, VLLM
from predict.requests import limits
from predict.requests.middleware import READ
from predict.requests.routes import CHAT_COMPLETIONS
from predict.settings import DEFAULT_LIMITS, read, variable

from deploy import cards
from deploy.variables import predict_settings
from tests.support.limits import AT_MOST, NO_LIMITS, user


def refused(body: dict[str, Any], **given: int) -> str:
    with pytest.raises(RequestError) as error:
        limits.check(body, len(json.dumps(body)), {**NO_LIMITS, **given})
    return str(error.value)


@pytest.mark.parametrize(("limit", "most", "allowed", "too_much"), AT_MOST, ids=str)
def test_a_limit_allows_what_it_says_and_no_more(
    limit: str, most: int, allowed: dict[str, Any], too_much: dict[str, Any]
) -> None:
    given = {**NO_LIMITS, limit: most}
    limits.check(allowed, len(json.dumps(allowed)), given)
    assert str(most - (limit == "vocabulary")) in refused(too_much, **{limit: most})
    limits.check(too_much, len(json.dumps(too_much)), NO_LIMITS)


def test_every_limit_is_tried() -> None:
    assert {limit for limit, *_ in AT_MOST} == DEFAULT_LIMITS.keys() - {
        "body_bytes",
        "image_memory_bytes",  # test_images_memory.py
        "prompt_work",  # test_prompt_logprobs.py
        "logprob_entries",  # test_requests_new_tokens.py
        "beam_tokens",  # as well
    }


def test_images_get_an_eighth_of_the_host_s_memory_with_their_caches() -> None:
    card = cards.load("pixtral-12b")
    large = card.model_copy(update={"serving": card.serving.model_copy(update={"memory": 64})})
    assert card.images
    caches = 2 * int(card.images.cache_gib * 2**30)
    assert card.request_limits["image_memory_bytes"] == (2 << 30) - caches
    assert large.request_limits["image_memory_bytes"] == (8 << 30) - caches


def test_a_request_has_no_more_prompts_than_the_server_takes_requests() -> None:
    card = cards.load("mistral-7b")
    assert read(predict_settings(card, 145)).limits["prompts"] == 145
    assert read(predict_settings(card, 320)).limits["prompts"] == 256
    unlimited = card.model_copy(update={"limits": {"prompts": None}})
    assert read(predict_settings(unlimited, 320)).limits["prompts"] == 320


def test_a_card_s_limits_arrive_and_only_differing_ones_are_written() -> None:
    for card in cards.load_all():
        rendered = predict_settings(card)
        assert read(rendered).limits == card.request_limits
        written = {name for name in DEFAULT_LIMITS if variable(name) in rendered}
        derived = {"vocabulary", *(["image_memory_bytes"] if card.images else [])}
        assert written == {*card.limits, *derived}


def test_a_variable_overrides_a_default_and_an_empty_one_lifts_it() -> None:
    assert read({}).limits == DEFAULT_LIMITS
    given = {variable("depth"): "7", variable("answers"): ""}
    assert read(given).limits == {**DEFAULT_LIMITS, "depth": 7, "answers": None}


def test_images_in_a_request_do_not_count_as_text() -> None:
    data = "data:image/png;base64," + "A" * 1000
    for part in (
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image_url", "image_url": data},
        {"image_url": data},
        {"type": "input_image", "image_url": data},
        {"type": "image", "source": {"type": "base64", "data": data}},
    ):
        body = user({"type": "text", "text": "What?"}, part)
        limits.check(body, len(json.dumps(body)), {**NO_LIMITS, "text_bytes": 200})
        limits.check_size(json.dumps(body).encode(), {**NO_LIMITS, "text_bytes": 200})
    anthropic = user({"type": "image", "source": {"type": "base64", "data": "A" * 1000}})
    for separators in ((",", ":"), (", ", " : ")):
        whole = json.dumps(anthropic, separators=separators).encode()
        limits.check_size(whole, {**NO_LIMITS, "text_bytes": 200})
    hidden = user({"type": "text", "text": "a", "image_url": data})
    assert "beside its images" in refused(hidden, text_bytes=200)


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**400])
def test_integers_have_64_bits_wherever_they_are(number: int) -> None:
    body: Any
    for body in ({"seed": number}, {"a": [{"b": number}]}, {"tokens": [1, number]}):
        assert "64 bits" in refused(body)
    limits.check({"seed": 2**63 - 1, "tokens": [-(2**63)]}, 10, NO_LIMITS)


@pytest.mark.parametrize("number", [1e19, -1e30, 1.7e308])
def test_a_field_s_number_has_64_bits_however_it_is_written(number: float) -> None:
    assert "'top_k'" in refused({"top_k": number})
    assert "'top_k'" in refused({"top_k": f"0__{2**64}"})
    limits.check({"prompt": str(2**64), "top_k": str(2**62)}, 10, NO_LIMITS)
    limits.check({"text": {"maximum": number}}, 10, NO_LIMITS)


@pytest.mark.parametrize("kind", REFUSED_PARTS)
def test_parts_of_tensors_are_refused(kind: str) -> None:
    for part in ({"type": kind}, {kind: "a"}, {"type": "text", kind: None}):
        assert kind in refused(user(part))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([5], "[0]' takes an object, got 5"),
        ([{"role": "user"}, {}], "[1]' has no role"),
        ([{"role": 5}], "[0]' has no role"),
        ([{"role": "user", "content": [None]}], "[0].content[0]' takes an object"),
        ([{"role": "user", "content": ["a", []]}], "[0].content[1]' takes an object"),
    ],
)
def test_the_place_of_a_malformed_message_is_named(messages: Any, said: str) -> None:
    for name in ("messages", "input"):
        assert f"'{name}{said}" in refused({name: messages})


# What is open beside the chat completion's own fields, by route.
OPEN = {
    "/v1/completions": ["prompt", "suffix"],
    "/v1/responses": [
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "reasoning",
        "service_tier",
        "store",
        "text",
        "truncation",
        "enable_response_messages",
    ],
    "/v1/messages": ["metadata", "output_config", "stop_sequences", "system", "thinking"],
    "/v1/messages/count_tokens": ["output_config", "system", "thinking"],
    "/tokenize": ["prompt", "return_token_strs"],
    "/detokenize": ["tokens"],
}


def test_every_field_of_vllm_s_requests_is_decided_on() -> None:
    from vllm.entrypoints.anthropic import protocol as anthropic
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.serve.tokenize import protocol as tokenize

    requests = {
        "/v1/completions": [CompletionRequest],
        "/v1/responses": [ResponsesRequest],
        "/v1/messages": [anthropic.AnthropicMessagesRequest],
        "/v1/messages/count_tokens": [anthropic.AnthropicCountTokensRequest],
        "/tokenize": [tokenize.TokenizeCompletionRequest, tokenize.TokenizeChatRequest],
        "/detokenize": [tokenize.DetokenizeRequest],
    }
    assert requests.keys() == OPEN.keys() == READ - {CHAT_COMPLETIONS}
    every = set(VLLM)  # a chat's, which test_legacy_parameters.py holds against vLLM's
    for path, classes in requests.items():
        fields = {name for request in classes for name in request.model_fields}
        assert fields - VLLM - set(REFUSED) == set(OPEN[path])
        every |= fields
    assert set(REFUSED) <= every


def test_every_kind_of_content_part_is_decided_on() -> None:
    from vllm.renderers.chat_utils import MM_PARSER_MAP

    by_url = {"image_url", "input_image", "audio_url", "input_audio", "video_url"}
    text = {"text", "input_text", "output_text", "refusal", "thinking", "tool_reference"}
    assert set(MM_PARSER_MAP) == by_url | text | set(REFUSED_PARTS)


def test_every_header_vllm_reads_is_decided_on() -> None:
    from vllm.entrypoints.generate.base import serving

    given = {serving.PRIORITY_HEADER.lower().encode(), serving.SESSION_ID_HEADER.lower().encode()}
    assert given <= HEADERS

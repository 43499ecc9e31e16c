"""The tables of parameters.yaml against the libraries they speak of."""

import inspect
import typing
from typing import Any

from predict.legacy.parameters import (
    BEAMS,
    CHAT,
    GENERATE,
    LEGACY,
    MAPPED,
    OPENAI,
    READERS,
    REMOVED,
    UNSUPPORTED,
    VLLM,
)


def test_every_argument_of_generation_config_has_a_row() -> None:
    from transformers import GenerationConfig

    assert set(GenerationConfig().__dict__) - GENERATE == set()
    assert set(GenerationConfig().to_dict()) - GENERATE == set()


def test_every_argument_of_generate_itself_has_a_row() -> None:
    from transformers.generation import GenerationMixin

    arguments = set(inspect.signature(GenerationMixin.generate).parameters) - {"self", "kwargs"}
    assert arguments - GENERATE == set()


def test_the_fields_of_vllm_are_those_of_its_chat_request() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    assert set(ChatCompletionRequest.model_fields) == VLLM


def test_every_parameter_of_the_openai_client_is_known() -> None:
    from openai.types.chat import completion_create_params as params

    sent = set(typing.get_type_hints(params.CompletionCreateParamsBase)) | {"stream"}
    assert sent - CHAT == set()
    assert sent - VLLM == OPENAI


def test_removed_names_are_those_vllm_warns_of() -> None:
    from vllm.entrypoints.serve.engine import protocol

    assert set(REMOVED) == protocol._REMOVED_GUIDED_FIELDS


def test_the_tables_do_not_overlap() -> None:
    assert not LEGACY & CHAT
    assert not set(REMOVED) & (CHAT | LEGACY)


def test_every_row_says_what_it_must() -> None:
    for name, row in MAPPED.items():
        assert row.takes in READERS, name
        assert row.fields or row.note, name
        assert VLLM.issuperset(row.fields), name
    for name, unavailable in UNSUPPORTED.items():
        assert unavailable.instead, name


def test_what_vllm_s_beam_search_takes_is_known_to_act() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.sampling_params import BeamSearchParams

    asked: dict[str, Any] = {
        "messages": [],
        "structured_outputs": {"regex": "a"},
        "watermarking": None,
    }
    got = ChatCompletionRequest.model_validate(asked).to_beam_search_params(5, {})
    assert got.structured_outputs is None  # the chat route does not hand it on
    here = {"beam_width": "n", "structured_outputs": "n", "watermarking": "n"}
    taken = {here.get(name, name) for name in BeamSearchParams.__struct_fields__}
    assert taken <= BEAMS <= VLLM

"""The tables of parameters.yaml against the libraries they speak of."""

import inspect
import typing

from predict.parameters import CHAT, GENERATE, MAPPED, OLDER, OPENAI, REMOVED, UNAVAILABLE, VLLM
from predict.takes import TAKES


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
    assert not OLDER & CHAT
    assert not set(REMOVED) & (CHAT | OLDER)


def test_every_row_says_what_it_must() -> None:
    for name, row in MAPPED.items():
        assert row.takes in TAKES, name
        assert row.becomes or row.note, name
        for field in filter(None, row.becomes.split(", ")):
            assert field in VLLM, name
    for name, unavailable in UNAVAILABLE.items():
        assert unavailable.instead, name

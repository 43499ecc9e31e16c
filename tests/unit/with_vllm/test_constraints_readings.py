"""vLLM reads a constraint once, and a structural tag after it was tried."""

import inspect
import json
import re
import sys
from typing import Any

import pytest
from predict.constraints import readings
from vllm.entrypoints.generate.base import protocol
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output import backend_xgrammar

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TAG = {"type": "structural_tag", "format": {"type": "regex", "pattern": "a+"}}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What vLLM has read since the functions were installed; undone after the test."""
    seen: list[Any] = []
    validate = backend_xgrammar.validate_xgrammar_grammar

    def noted(params: Any) -> None:
        seen.append(params.structured_outputs)
        validate(params)

    monkeypatch.setattr(backend_xgrammar, "validate_xgrammar_grammar", noted)
    tags = "validate_structural_tag_payload"
    monkeypatch.setattr(protocol, tags, getattr(protocol, tags))
    readings.install()
    return seen


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"regex": "a+"}, {"regex": "("}),
        ({"json": SCHEMA}, {"json": {"type": "string", "pattern": "("}}),
        ({"json": json.dumps(SCHEMA)}, {"json": "{"}),
        ({"grammar": 'root ::= "a"'}, {"grammar": "root ::= ("}),
        ({"structural_tag": json.dumps(TAG)}, {"structural_tag": '{"type": "structural_tag"}'}),
    ],
)
def test_what_was_read_without_a_fault_is_not_read_again(
    read: list[Any], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    for _ in range(3):
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**good))
        backend_xgrammar.validate_xgrammar_grammar(params)
    assert len(read) == 1
    for _ in range(2):
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**bad))
        with pytest.raises((ValueError, VLLMValidationError)):
            backend_xgrammar.validate_xgrammar_grammar(params)
    assert len(read) == 3


def test_choices_become_a_grammar_each_time(read: list[Any]) -> None:
    for _ in range(2):
        params = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["a", "b"]))
        backend_xgrammar.validate_xgrammar_grammar(params)
        assert params.structured_outputs.choice is None
        assert params.structured_outputs.grammar


def test_a_structural_tag_is_not_read_with_the_request(read: list[Any]) -> None:
    request = {"messages": [{"role": "user", "content": "a"}]}
    ChatCompletionRequest(**request, response_format=TAG)
    ChatCompletionRequest(**request, structured_outputs={"structural_tag": json.dumps(TAG)})
    assert read == []
    for text in ("", "{", "5"):
        with pytest.raises(VLLMValidationError):
            ChatCompletionRequest(**request, structured_outputs={"structural_tag": text})


def test_what_vllm_imports_for_a_constraint_is_there_before_one_comes(read: list[Any]) -> None:
    imported = re.findall(
        r"from (vllm\.v1\.structured_output\.backend_\w+) import",
        inspect.getsource(SamplingParams._validate_structured_outputs),
    )
    assert len(imported) == len(readings.BACKENDS)
    assert set(imported) <= sys.modules.keys()

"""A number that the engine cannot take is refused before vLLM has the request on its list."""

from typing import Any

import pytest
from predict import sampling_params
from predict.requests.limits import MOST_INTEGER
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams

LAST = MOST_INTEGER
# with what else vLLM sends, which must not be taken for a number
WHOLE: dict[str, Any] = {
    "n": 2,
    "stop": ["a"],
    "stop_token_ids": [1],
    "bad_words": ["a"],
    "logit_bias": {1: 2.0},
    "structured_outputs": StructuredOutputsParams(json={"type": "object"}),
    "repetition_detection": RepetitionDetectionParams(max_pattern_size=3, min_count=2),
    "extra_args": {"a": [None, 0.5]},
}


class Engine:
    def __init__(self) -> None:
        self.given: list[Any] = []
        sampling_params.install(self)

    def generate(self, prompt: Any, params: Any, request_id: str, *, priority: int = 0) -> str:
        self.given.append((prompt, params, request_id, priority))
        return "outputs"


@pytest.mark.parametrize(
    "numbers",
    [{}, {"seed": LAST - 1}, {"seed": LAST, "n": 1}, {"seed": -LAST}, {"top_k": 2**64 - 1}],
)
def test_what_fits_goes_to_the_engine_as_it_is(numbers: dict[str, int]) -> None:
    engine, params = Engine(), SamplingParams(**{**WHOLE, **numbers})
    assert engine.generate("prompt", params, "id", priority=1) == "outputs"
    assert engine.given == [("prompt", params, "id", 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", LAST),  # the second answer's is one more
        ("seed", -(2**63) - 1),
        ("top_k", 2**64),
        ("max_tokens", 2**70),
        ("stop_token_ids", [2**64]),
        ("repetition_detection", RepetitionDetectionParams(max_pattern_size=2**64, min_count=2)),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(name: str, value: Any) -> None:
    engine = Engine()
    with pytest.raises(VLLMValidationError, match=f"'{name}'") as caught:
        engine.generate("prompt", SamplingParams(**{**WHOLE, name: value}), "id")
    assert caught.value.parameter == name
    assert engine.given == []

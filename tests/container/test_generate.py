"""generate's arguments have the same effect as in transformers, on the same stand-in."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest

from deploy import cards
from local.standins import cache
from tests.support.container import Running, at_once

MODEL = "mixtral-8x7b"  # its stand-in is in Hugging Face's format
pytestmark = pytest.mark.parametrize("container", [MODEL], indirect=True)

QUESTIONS = ["What is the Mistral wind?", "What is the meaning of life?", "Tell me about yourself"]

GREEDY = {"do_sample": False, "max_new_tokens": 40}


@pytest.fixture(scope="module")
def model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # several would wait for each other while vLLM's workers use a core
    return AutoModelForCausalLM.from_pretrained(cache.ensure(cards.load(MODEL)), dtype="bfloat16")


@dataclass(frozen=True)
class Expected:
    """The texts of transformers' own generate. A single text stops before the first token that
    leads another by less than `MARGIN`: other kernels may choose differently there, such as where
    an answer may not end yet."""

    texts: list[str]
    certain: str


def generate(container: Running, model: Any, question: str, arguments: dict[str, Any]) -> Expected:
    import torch

    from local.standins.exam import MARGIN  # imports torch and transformers, which takes seconds

    request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
        {"messages": [{"role": "user", "content": question}]}
    )
    prompt = container.tokenizer.encode_chat_completion(request).tokens
    end = container.tokenizer.instruct_tokenizer.tokenizer.eos_id
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        output_scores=True,
        return_dict_in_generate=True,
        **{"eos_token_id": end, "pad_token_id": end, **arguments},
    )
    answers = [ids[len(prompt) :].tolist() for ids in found.sequences]
    texts = [container.tokenizer.decode(ids) for ids in answers]
    if arguments.get("num_beams", 1) > 1:
        return Expected(texts, texts[0])
    best = [scores[0].topk(2).values.tolist() for scores in found.scores]
    ties = [at for at, (first, second) in enumerate(best) if first - second < MARGIN]
    return Expected(texts, container.tokenizer.decode(answers[0][: (*ties, None)[0]]))


def token(container: Running, word: str) -> int:
    ids: list[int] = container.tokenizer.instruct_tokenizer.tokenizer.encode(
        word, bos=False, eos=False
    )
    return ids[-1]


CASES: dict[str, Any] = {
    "greedy": {},
    "greedy with sampling arguments": {"temperature": 0.9, "top_p": 0.5, "top_k": 7},
    "repetition_penalty": {"repetition_penalty": 5.0},
    "beams": {"num_beams": 3},
    "all beams": {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 30},
    "beams with length_penalty": {
        "num_beams": 4,
        "num_return_sequences": 2,
        "length_penalty": 0.0,
    },
    "eos_token_id": {"eos_token_id": "wind"},
    "several eos_token_id": {"eos_token_id": ["wind", ","]},
    "suppress_tokens": {"suppress_tokens": ["wind"]},
    "bad_words_ids": {"bad_words_ids": [["wind"]]},
    "sequence_bias": {"sequence_bias": [[["wind"], -50.0]]},
    "min_new_tokens": {"min_new_tokens": 35},
    "max_length": {"max_length": 25, "max_new_tokens": None},
}


def with_ids(container: Running, value: Any) -> Any:
    """An argument's value with its words as tokens."""
    if isinstance(value, list):
        return [with_ids(container, inner) for inner in value]
    return token(container, value) if isinstance(value, str) else value


def arguments_of(container: Running, name: str) -> dict[str, Any]:
    case = CASES[name]
    return {**GREEDY, **{key: with_ids(container, value) for key, value in case.items()}}


@pytest.fixture(scope="module")
def responses(container: Running) -> dict[tuple[str, str], httpx.Response]:
    """Responses by case and question."""

    def ask(asked: tuple[str, str]) -> httpx.Response:
        name, question = asked
        body = {"prompt": question, **arguments_of(container, name)}
        for _ in range(5):  # a beam search gets a 503 after 30 s behind others
            response = container.http.post("/predict", json=body)
            if response.status_code != 503:
                break
        return response

    # An answer that may not end continues where nothing was trained, and ties decide.
    asked = [
        (name, question)
        for name, case in CASES.items()
        for question in (QUESTIONS[:1] if "eos_token_id" in case else QUESTIONS)
    ]
    return dict(zip(asked, at_once(ask, asked), strict=True))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")  # transformers', about contradictions that it accepts
def test_the_output_is_that_of_transformers(
    container: Running,
    model: Any,
    responses: dict[tuple[str, str], httpx.Response],
    name: str,
) -> None:
    arguments = arguments_of(container, name)
    of_case = {question: got for (case, question), got in responses.items() if case == name}
    assert of_case
    for question, response in of_case.items():
        assert response.status_code == 200, response.text
        output = response.json()["output"]
        expected = generate(container, model, question, arguments)
        if len(expected.texts) > 1:  # beams; vLLM's length for ranking them differs
            assert (output[0], len(output)) == (expected.texts[0], len(expected.texts))
        elif expected.certain == expected.texts[0]:
            assert output == expected.certain
        else:
            assert output.startswith(expected.certain)
            assert len(output) > len(expected.certain)

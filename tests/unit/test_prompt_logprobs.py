"""Log probabilities of prompts are bounded by the tokens of a request's prompts, whatever they are
made of."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from predict import prompt_logprobs
from vllm.exceptions import VLLMValidationError


def asked(*prompts: int, n: int = 1, most: int | None = 60, logprobs: int | None = 0) -> int:
    """How many prompts of so many tokens of one request the engine gets."""
    got: list[Any] = []

    async def add_request(request_id: str, prompt: Any, params: Any) -> None:
        got.append(prompt)

    async def one(tokens: int) -> None:
        params = SimpleNamespace(prompt_logprobs=logprobs, n=n)
        await engine.add_request("a", {"prompt_token_ids": [5] * tokens}, params)

    async def request() -> None:
        prompt_logprobs.begin()
        await asyncio.gather(*map(one, prompts), return_exceptions=True)

    engine = SimpleNamespace(add_request=add_request)
    prompt_logprobs.install(engine, most)
    for _ in range(2):  # the first request leaves nothing to the second
        got.clear()
        asyncio.run(request())
    return len(got)


@pytest.mark.parametrize(
    ("prompts", "n", "got"),
    [((10,), 1, 1), ((11,), 1, 0), ((5,), 2, 1), ((6,), 2, 0), ((4, 6), 1, 2), ((4, 6, 1), 1, 2)],
)
def test_the_tokens_of_all_prompts_and_their_answers_are_counted(
    prompts: tuple[int, ...], n: int, got: int
) -> None:
    assert asked(*prompts, n=n) == got
    assert asked(*prompts, n=n, logprobs=None) == len(prompts)
    assert asked(*prompts, n=n, most=None) == len(prompts)


@pytest.mark.parametrize(("logprobs", "got"), [(0, 1), (5, 1), (6, 0), (20, 0)])
def test_many_for_each_token_count_more(logprobs: int, got: int) -> None:
    assert asked(10, logprobs=logprobs) == got


def test_the_error_names_the_field_and_what_to_do() -> None:
    prompt_logprobs.begin()
    with pytest.raises(VLLMValidationError, match=r"is 36; at most 30") as caught:
        prompt_logprobs.check(2, 3, 1, 30)
    assert caught.value.parameter == "prompt_logprobs"
    assert len(str(caught.value)) < 300

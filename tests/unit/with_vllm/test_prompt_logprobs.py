"""Log probabilities of prompts are bounded by the tokens of a request's prompts, whatever they are
made of, and computed one request at a time."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from predict import prompt_logprobs
from vllm.exceptions import VLLMValidationError


class Engine:
    """Answers with two outputs, each after a turn of the event loop."""

    def __init__(self, most: int | None) -> None:
        self.computing = self.most_computing = self.answered = self.ended = 0
        prompt_logprobs.install(self, most)

    async def generate(self, prompt: Any, params: Any) -> AsyncGenerator[Any]:
        self.computing += 1
        self.most_computing = max(self.most_computing, self.computing)
        try:
            await asyncio.sleep(0)
            self.computing -= 1
            for number in range(2):
                yield output(number)
                await asyncio.sleep(0)
            self.answered += 1
        finally:
            self.ended += 1


def output(index: int) -> Any:
    """The first of an answer, as `index` of those to a prompt."""
    return SimpleNamespace(outputs=[SimpleNamespace(index=index)])


def prompt(tokens: int) -> dict[str, Any]:
    return {"prompt_token_ids": [5] * tokens}


def asked(*prompts: int, n: int = 1, most: int | None = 60, logprobs: int | None = 0) -> Engine:
    """The engine that one request asked with prompts of so many tokens."""
    engine = Engine(most)
    params = SimpleNamespace(prompt_logprobs=logprobs, n=n)

    async def answered(outputs: Any) -> None:
        async for _ in outputs:
            pass

    async def request() -> None:
        prompt_logprobs.begin()
        try:  # as vLLM: all prompts, then their answers
            outputs = [engine.generate(prompt(tokens), params) for tokens in prompts]
        except VLLMValidationError:
            return
        await asyncio.gather(*map(answered, outputs))

    async def main() -> None:
        await request()
        engine.answered = engine.most_computing = 0
        await request()  # the first leaves nothing to the second

    asyncio.run(main())
    return engine


@pytest.mark.parametrize(
    ("prompts", "n", "got"),
    [((10,), 1, 1), ((11,), 1, 0), ((5,), 2, 1), ((6,), 2, 0), ((4, 6), 1, 2), ((4, 6, 1), 1, 0)],
)
def test_the_tokens_of_all_prompts_and_their_answers_are_counted(
    prompts: tuple[int, ...], n: int, got: int
) -> None:
    assert asked(*prompts, n=n).answered == got
    assert asked(*prompts, n=n, logprobs=None).answered == len(prompts)
    assert asked(*prompts, n=n, most=None).answered == len(prompts)


@pytest.mark.parametrize(("logprobs", "got"), [(0, 1), (5, 1), (6, 0), (20, 0)])
def test_many_for_each_token_count_more(logprobs: int, got: int) -> None:
    assert asked(10, logprobs=logprobs).answered == got


def test_one_prompt_has_the_engine_at_a_time() -> None:
    assert asked(1, 1, 1).most_computing == 1
    assert asked(1, 1, 1, logprobs=None).most_computing == 3


def test_who_leaves_gives_its_turn_to_the_next() -> None:
    engine = Engine(60)
    params = SimpleNamespace(prompt_logprobs=0, n=1)

    async def main() -> None:
        leaves = engine.generate(prompt(1), params)
        assert await anext(leaves) == output(0)
        await leaves.aclose()
        assert engine.ended == 1
        assert [each async for each in engine.generate(prompt(1), params)] == [output(0), output(1)]

    asyncio.run(main())


@pytest.mark.parametrize("answers", [1, 2])
def test_who_does_not_read_its_answers_keeps_nobody_waiting(answers: int) -> None:
    engine = Engine(60)
    params = SimpleNamespace(prompt_logprobs=0, n=answers)

    async def main() -> None:
        unread = engine.generate(prompt(1), params)
        assert await anext(unread) == output(0)
        assert len([each async for each in engine.generate(prompt(1), params)]) == 2
        assert len([each async for each in unread]) == 1
        assert engine.ended == 2

    asyncio.run(main())


def test_there_are_none_of_a_prompt_with_images() -> None:
    """4160 tokens of one of the largest took 4 GB, and the engine did nothing else for 6 s."""
    prompt_logprobs.begin()
    image = {**prompt(2), "mm_kwargs": {}}
    with pytest.raises(VLLMValidationError, match="a prompt with images") as caught:
        prompt_logprobs.check(image, 1, 0, 1000)
    assert caught.value.parameter == "prompt_logprobs"


def test_the_error_names_the_field_and_what_to_do() -> None:
    prompt_logprobs.begin()
    with pytest.raises(VLLMValidationError, match=r"is 36; at most 30") as caught:
        prompt_logprobs.check(prompt(2), 3, 1, 30)
    assert caught.value.parameter == "prompt_logprobs"
    assert len(str(caught.value)) < 320

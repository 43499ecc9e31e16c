"""Log probabilities of prompts: limited by the prompts' own tokens, for one request at a time.

If they are requested, the engine computes the whole vocabulary for each token of a prompt, cached
or not, and the server detokenizes each: 30,000 tokens took 14 to 30 s on a CPU, and 4,096 with 20
each took 1.3 s of the event loop. On a GPU, vLLM's second model runner computes it for each token
of the whole step.

Promises: the tokens of all prompts of a request, times the answers to each, times the log
probabilities of a token, stay within the limit `prompt_work`. A request beyond it is refused as
vLLM refuses a field, before the engine has any of it; so is a prompt with images, each of which is
up to 4160 tokens. What counts is what vLLM made of the request: a digit is a token. Such prompts
are computed one after another, in order of arrival; a stream that has begun keeps nobody waiting,
even if its client does not read it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

LEAST = 5  # a token's takes the engine as long as detokenizing five takes the server

# For the request being read: what it has asked for.
_asked: ContextVar[list[int] | None] = ContextVar("asked", default=None)


def begin() -> None:
    """A request arrives."""
    _asked.set([0])


def check(prompt: Any, answers: int, logprobs: int, most: int) -> None:
    """Adds a prompt of vLLM's, with its answers, to what its request has asked for; refuses too
    much."""
    from vllm.exceptions import VLLMValidationError

    if "mm_kwargs" in prompt:
        raise VLLMValidationError(
            "log probabilities of a prompt with images are asked for; they are given for text "
            "alone, as an image is thousands of tokens: leave out 'prompt_logprobs' and 'echo', "
            "or the images",
            parameter="prompt_logprobs",
        )
    asked = _asked.get() or [0]
    asked[0] += len(prompt["prompt_token_ids"]) * answers * (1 + max(LEAST, logprobs))
    if asked[0] > most:
        raise VLLMValidationError(
            "log probabilities of prompts are asked for ('echo' in a chat does too), and tokens × "
            f"'n' × (1 + log probabilities of each, {LEAST} at least) is {asked[0]}; at most "
            f"{most} is allowed, for others wait meanwhile: ask for fewer, or shorten the prompt",
            parameter="prompt_logprobs",
        )


def install(engine: Any, most: int | None) -> None:
    """Has the requests to vLLM's client of its engine counted; None is no limit."""
    if most is None:
        return
    original = engine.generate
    turn = asyncio.Lock()

    async def in_turn(outputs: Any, answers: int) -> AsyncIterator[Any]:
        first: list[Any] = []
        begun: set[int] = set()
        async with aclosing(outputs):
            async with turn:
                async for output in outputs:
                    first.append(output)
                    begun.update(answer.index for answer in output.outputs)
                    if len(begun) >= answers:
                        break
            for output in first:
                yield output
            async for output in outputs:
                yield output

    def generate(prompt: Any, sampling_params: Any, *rest: Any, **more: Any) -> Any:
        outputs = original(prompt, sampling_params, *rest, **more)
        if (logprobs := getattr(sampling_params, "prompt_logprobs", None)) is None:
            return outputs
        check(prompt, sampling_params.n, logprobs, most)
        return in_turn(outputs, sampling_params.n)

    engine.generate = generate

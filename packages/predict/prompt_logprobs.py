"""Log probabilities of prompts, bounded by the prompts' own tokens.

Where they are asked for, the engine computes the whole vocabulary for each token of a prompt,
cached or not, and the server spells and writes them: 30,000 tokens took 14 to 30 s on a CPU.

Promises: the tokens of all prompts of a request, times the answers to each, are within the limit
`prompt_logprobs_tokens`; what is beyond is refused as vLLM refuses a field, before the engine has
it, and what it has of the same request is ended. What is counted is what vLLM made of the request:
a character is a token in digits, and an image 4160.
"""

from contextvars import ContextVar
from typing import Any

# Of the request that is read: the tokens whose log probabilities it has asked for.
_asked: ContextVar[list[int] | None] = ContextVar("asked", default=None)


def begin() -> None:
    """A request comes."""
    _asked.set([0])


def check(tokens: int, answers: int, most: int) -> None:
    """Counts a prompt with its answers to what the request has asked for."""
    from vllm.exceptions import VLLMValidationError

    asked = _asked.get() or [0]
    asked[0] += tokens * answers
    if asked[0] > most:
        raise VLLMValidationError(
            f"log probabilities of {asked[0]} tokens of prompts are asked for, counted for each of "
            f"the answers ('n'); at most {most} are allowed, for others wait meanwhile: shorten "
            "the prompt, or leave out 'prompt_logprobs', or 'echo' beside 'logprobs'",
            parameter="prompt_logprobs",
        )


def install(engine: Any, most: int | None) -> None:
    """Has what goes to vLLM's client of its engine counted; None is no limit."""
    if most is None:
        return
    original = engine.add_request

    async def add_request(
        request_id: str, prompt: Any, params: Any, *rest: Any, **more: Any
    ) -> Any:
        if getattr(params, "prompt_logprobs", None) is not None:
            check(len(prompt["prompt_token_ids"]), params.n, most)
        return await original(request_id, prompt, params, *rest, **more)

    engine.add_request = add_request

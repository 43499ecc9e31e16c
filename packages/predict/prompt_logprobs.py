"""Log probabilities of prompts, bounded by the prompts' own tokens.

Where they are asked for, the engine computes the whole vocabulary for each token of a prompt,
cached or not, and the server spells each: 30,000 tokens took 14 to 30 s on a CPU, and 4,096 with 20
each took 1.3 s of the event loop.

Promises: the tokens of all prompts of a request, times the answers to each, times what each token
has, are within the limit `prompt_work`; what is beyond is refused as vLLM refuses a field, before
the engine has it, and what it has of the same request is ended. What is counted is what vLLM made
of the request: a digit is a token, and an image up to 4160.
"""

from contextvars import ContextVar
from typing import Any

LEAST = 5  # log probabilities of a token, which take the server as long as the engine its token

# Of the request that is read: what it has asked for.
_asked: ContextVar[list[int] | None] = ContextVar("asked", default=None)


def begin() -> None:
    """A request comes."""
    _asked.set([0])


def check(tokens: int, answers: int, logprobs: int, most: int) -> None:
    """Counts a prompt with its answers to what the request has asked for."""
    from vllm.exceptions import VLLMValidationError

    asked = _asked.get() or [0]
    asked[0] += tokens * answers * (1 + max(LEAST, logprobs))
    if asked[0] > most:
        raise VLLMValidationError(
            "log probabilities of prompts are asked for, and tokens × 'n' × (1 + log probabilities "
            f"of each, {LEAST} at least) is {asked[0]}; at most {most} is allowed, for others wait "
            "meanwhile: ask for fewer, or shorten the prompt",
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
        if (logprobs := getattr(params, "prompt_logprobs", None)) is not None:
            check(len(prompt["prompt_token_ids"]), params.n, logprobs, most)
        return await original(request_id, prompt, params, *rest, **more)

    engine.add_request = add_request

"""Numbers as vLLM's engine is to get them, whatever way they were spelled.

An integer beyond 64 bits cannot be sent to the engine. vLLM finds that out when it has the request
on its list, where it then stays for ever and takes a place. And vLLM counts the seeds of several
answers up from the client's: its second model runner, that of GPUs, ends with one beyond 63 bits.

Promises: such a request is refused as vLLM refuses a field, before any of it is registered.
"""

from typing import Any

import msgspec

from predict.requests.limits import MOST_INTEGER


def check(params: Any) -> None:
    """Raises vLLM's error for the first of its SamplingParams that is too large."""
    from vllm.exceptions import VLLMValidationError

    if params.seed is not None and params.seed + params.n - 1 > MOST_INTEGER:
        raise VLLMValidationError(
            f"'seed' is {params.seed}, and each of {params.n} answers has one more than the one "
            f"before; at most {MOST_INTEGER} is allowed for the last",
            parameter="seed",
        )
    if not fits(params):
        name = next(name for name in params.__struct_fields__ if not fits(getattr(params, name)))
        raise VLLMValidationError(f"'{name}' has a number beyond 64 bits", parameter=name)


def fits(value: Any) -> bool:
    try:
        msgspec.msgpack.encode(value)  # as vLLM does when it sends it
    except OverflowError:
        return False
    return True


def install(engine: Any) -> None:
    """Has the requests to vLLM's client of its engine checked."""
    original = engine.generate

    def generate(prompt: Any, sampling_params: Any, *rest: Any, **more: Any) -> Any:
        check(sampling_params)
        return original(prompt, sampling_params, *rest, **more)

    engine.generate = generate

"""Numbers as vLLM's engine is to get them, whatever way they were spelled.

An integer beyond 64 bits cannot be sent to the engine. vLLM finds that out when it has the request
on its list, where it then stays for ever and takes a place. And vLLM counts the seeds of several
answers up from the client's: its second model runner, that of GPUs, ends with one beyond 63 bits.

Promises: such a request is refused as vLLM refuses a field, before any of it is registered.
"""

from typing import Any

MOST_SEED = 2**63 - 1


def check(params: Any) -> None:
    """Raises vLLM's error for the first of its SamplingParams that is too large."""
    import msgspec
    from vllm.exceptions import VLLMValidationError

    if params.seed is not None and params.seed + params.n - 1 > MOST_SEED:
        raise VLLMValidationError(
            f"'seed' is {params.seed}, and each of {params.n} answers has one more than the one "
            f"before; at most {MOST_SEED} is allowed for the last",
            parameter="seed",
        )
    try:
        msgspec.msgpack.encode(params)  # as vLLM does when it sends them
    except OverflowError:
        name = next(name for name in params.__struct_fields__ if not fits(getattr(params, name)))
        raise VLLMValidationError(f"'{name}' has a number beyond 64 bits", parameter=name) from None


def fits(value: Any) -> bool:
    import msgspec

    try:
        msgspec.msgpack.encode(value)
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

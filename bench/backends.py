"""Backends of `vllm bench serve`: the older streams, and several ways in turn in a single run."""

import dataclasses
import itertools
import time
import traceback
from collections.abc import Sequence
from typing import Any

TEXT = "predict-text"
IN_TURN = "predict-in-turn"


async def text_stream(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
    """One older request, as vLLM's `RequestFunc`: RequestFuncInput → RequestFuncOutput."""
    given = request_func_input
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

    body = {
        "prompt": given.prompt,
        "max_new_tokens": given.output_len,
        "stream": True,
        "ignore_eos": given.ignore_eos,
        **(given.extra_body or {}),
    }
    output = RequestFuncOutput(prompt_len=given.prompt_len)
    started = latest = time.perf_counter()
    output.start_time = started
    text = bytearray()
    try:
        async with session.post(given.api_url, json=body) as response:
            if response.status != 200:
                output.error = await response.text()
            else:
                async for chunk in response.content.iter_any():
                    now = time.perf_counter()
                    if text:
                        output.itl.append(now - latest)
                    else:
                        output.ttft = now - started
                    text += chunk
                    latest = now
                if not text:  # the stand-in wrote nothing but ends, which ignore_eos passes over
                    latest = time.perf_counter()
                    output.ttft = latest - started
                output.generated_text = text.decode()
                # The text does not say how many; with ignore_eos it is what was asked for.
                output.output_tokens = given.output_len
                output.latency = latest - started
                output.success = True
    except Exception:
        output.error = traceback.format_exc()
    if pbar:
        pbar.update(1)
    return output


class InTurn:
    """Sends each request another way than the one before it, and keeps the times to first token.

    `ways`: a backend and a URL each. What disturbs one request disturbs the next one as well, so
    that two ways differ by less than two runs of one way would.
    """

    def __init__(self, ways: Sequence[tuple[str, str]]) -> None:
        self.ways = ways
        self.turns = itertools.cycle(range(len(ways)))
        self.ttft: list[list[float]] = [[] for _ in ways]  # seconds, by the way's place in `ways`

    async def __call__(self, request_func_input: Any, session: Any, pbar: Any = None) -> Any:
        from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS

        turn = next(self.turns)
        backend, url = self.ways[turn]
        given = dataclasses.replace(request_func_input, api_url=url)
        output = await ASYNC_REQUEST_FUNCS[backend](given, session, pbar)
        self.ttft[turn].append(output.ttft)
        return output


def register(name: str, backend: Any) -> None:
    from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS

    ASYNC_REQUEST_FUNCS[name] = backend

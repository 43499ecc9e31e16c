"""A backend of `vllm bench serve` for the older streams: plain text, a chunk a token."""

import time
import traceback
from typing import Any

NAME = "predict-text"


async def request(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
    """One request, as vLLM's `RequestFunc`: its RequestFuncInput → its RequestFuncOutput."""
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


def register() -> None:
    from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS

    ASYNC_REQUEST_FUNCS[NAME] = request

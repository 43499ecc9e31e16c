"""Backends of `vllm bench serve`: legacy streams, images of an exact size, alternating routes.

Promises: only vLLM's own code and `text_stream` measure time; the others choose what is sent where.
"""

import dataclasses
import itertools
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from bench.metrics import Way

CHAT = "openai-chat"  # vLLM's own
TEXT = "predict-text"
WAYS = "ways-in-turn"

# vLLM's `RequestFunc`: RequestFuncInput, session, progress bar → RequestFuncOutput
Send = Callable[..., Awaitable[Any]]


async def text_stream(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
    """One request in the legacy format, whose stream is plain text without events."""
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

    given = request_func_input
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
                if not text:  # the stand-in wrote only end tokens, which ignore_eos skips
                    latest = time.perf_counter()
                    output.ttft = latest - started
                output.generated_text = text.decode()
                # The text does not show the number; with ignore_eos it is the one requested.
                output.output_tokens = given.output_len
                output.latency = latest - started
                output.success = True
    except Exception:
        output.error = traceback.format_exc()
    if pbar:
        pbar.update(1)
    return output


def with_images(send: Send, urls: Iterator[str], count: int) -> Send:
    """Adds the next `count` images to each request."""

    async def sent(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
        content = [
            {"type": "image_url", "image_url": {"url": url}}
            for url in itertools.islice(urls, count)
        ]
        given = dataclasses.replace(request_func_input, multi_modal_content=content)
        return await send(given, session, pbar)

    return sent


class InTurn:
    """Sends each request another way than the one before it, and keeps the results by way.

    A disturbance of one request also affects the next, so two ways differ by less than two runs of
    one way would. Calls `read` before the first request and after the last.
    """

    def __init__(
        self,
        ways: Sequence[tuple[Send, Way]],
        requests: int,
        read: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.ways = ways
        self.turns = itertools.cycle(range(len(ways)))
        self.outputs: list[list[Any]] = [[] for _ in ways]  # in the order of `ways`
        self.left = requests
        self.read = read
        self.readings: list[dict[str, float]] = []

    async def __call__(self, request_func_input: Any, session: Any, pbar: Any = None) -> Any:
        if not self.readings:
            self.readings.append(self.read())
        turn = next(self.turns)
        send, way = self.ways[turn]
        extra = {**(request_func_input.extra_body or {}), **way.fields}
        given = dataclasses.replace(request_func_input, api_url=way.url, extra_body=extra)
        output = await send(given, session, pbar)
        self.outputs[turn].append(output)
        self.left -= 1
        if self.left == 0:
            self.readings.append(self.read())
        return output


def registered() -> dict[str, Send]:
    """vLLM's table of backends; vLLM knows the entries added here by their names."""
    from vllm.benchmarks.lib.endpoint_request_func import ASYNC_REQUEST_FUNCS

    table: dict[str, Send] = ASYNC_REQUEST_FUNCS
    return table

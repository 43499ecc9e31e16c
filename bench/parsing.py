"""The time packages/predict takes to process a body before vLLM gets it."""

import asyncio
import json
import time
from typing import Any

from predict import settings
from predict.asgi import replay
from predict.requests.middleware import RequestMiddleware

from bench.errors import BenchError
from bench.metrics import spread

LIMITS = {"PREDICT_LIMIT_BODY_BYTES": "67108864", "PREDICT_LIMIT_TEXT_BYTES": "2097152"}
PIXTRAL = {
    "PREDICT_MAX_NEW_TOKENS": "512",
    "PREDICT_TEMPERATURE": "0.7",
    "PREDICT_DEFAULTS_FOR_MESSAGES": "1",
}


PLAIN, MENDED = "20 messages that need nothing", "20 messages, brought into form"
GOALS = {PLAIN: "at most 0.2", MENDED: "at most 0.2 more than those that need nothing"}


def bodies() -> dict[str, tuple[bytes, dict[str, str]]]:
    """Bodies by name, with settings. 2 MiB of text is the most any model takes."""

    def chat(content: Any) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBO" * 2500000}}
    picture = chat([{"type": "text", "text": "What?"}, image])
    return {
        PLAIN: (conversation(False), {}),
        MENDED: (conversation(True), {}),
        "a question of 4 KB": (chat('What does "mistral" mean?\n' * 140), {}),
        "an image of 10 MB": (picture, {}),
        "an image of 10 MB, Pixtral's defaults added": (picture, PIXTRAL),
        "a text of 2 MB": (chat(f"{'The wind blows. ' * 6}\n" * 20_400), {}),
        "source code of 2 MB": (chat('    print("The wind:", name)\n' * 60_600), {}),
        "2 MB of nothing but escapes": (chat('"\u00e9"\n' * 166_000), {}),
    }


def conversation(foreign: bool) -> bytes:
    """20 messages with ten answers, five of them calls; `foreign`: as clients of other models send
    them, with ids and text that these tokenizers reject, and a system message after an answer."""
    messages: list[dict[str, Any]] = []
    for turn in range(5):
        call = f"call_{turn}_abc" if foreign else f"abcdefgh{turn}"
        function = {"name": "get_weather", "arguments": '{"city": "Genoa"}'}
        calls = [{"id": call, "type": "function", "function": function}]
        text = "Let me see." if foreign else None
        messages += [
            {"role": "system" if foreign and turn == 3 else "user", "content": "And in Genoa?"},
            {"role": "assistant", "content": text, "tool_calls": calls},
            {"role": "tool", "tool_call_id": call, "content": "14 degrees, mistral"},
            {"role": "assistant", "content": "It is 14 degrees in Genoa, and the mistral blows."},
        ]
    messages[-1] = {"role": "user", "content": "What is the Mistral wind?"}
    return json.dumps({"messages": messages}).encode()


def measure(repeats: int) -> dict[str, Any]:
    """The time from a body's first chunk to the call of vLLM behind the middleware."""
    rows = []
    for name, (body, environment) in bodies().items():
        times = [asyncio.run(_once(body, environment)) for _ in range(repeats)]
        goal = GOALS.get(name, "at most 0.1" if len(body) < 10_000 else "at most 10")
        rows.append({"body": name, "bytes": len(body), "goal": goal, "ms": vars(spread(times))})
    return {"repeats": repeats, "rows": rows}


async def _once(body: bytes, environment: dict[str, str]) -> float:
    """In ms."""
    chunks = [body[i : i + 65536] for i in range(0, len(body), 65536)]  # as uvicorn splits it
    reached = 0.0

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        nonlocal reached
        await receive()
        reached = time.perf_counter()

    async def nothing_more() -> Any:
        raise BenchError("more was read than the body")

    async def send(message: Any) -> None:
        raise BenchError(f"the middleware answered a benign request itself: {message}")

    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": []}
    predict = RequestMiddleware(vllm, settings.read(LIMITS | environment))
    started = time.perf_counter()
    await predict(scope, replay(chunks, nothing_more), send)
    return (reached - started) * 1000

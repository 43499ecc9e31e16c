"""The request middleware in front of a fake of vLLM that records what it receives."""

import asyncio
import json
from typing import Any

from predict import pacing, settings
from predict.images.batch import ImageBatch, current_batch
from predict.requests.middleware import RequestMiddleware

CHAT_PATH = "/v1/chat/completions"


class Vllm:
    """Records what the middleware forwards, and answers with a short chat completion."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.batches: list[ImageBatch | None] = []
        self.taken = 0  # pieces of the body that were read

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.scopes.append(scope)
        self.bodies.append(body)
        self.batches.append(current_batch())
        if scope["type"] == "http":
            start = {"type": "http.response.start", "status": 200, "headers": []}
            answer = {"choices": [{"message": {"content": "Hi"}}], "usage": {}}
            await send(start)
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def post(
    path: str,
    body: bytes,
    announced: bool = True,
    method: str = "POST",
    stream_interval: int = 1,
    vllm: Vllm | None = None,
    **given: Any,
) -> tuple[Vllm, int, Any]:
    """What vLLM received, and the response's status and body. `given`: variables, and
    "header:name"."""
    vllm, sent = vllm or Vllm(), []
    own = {name: value for name, value in given.items() if name.startswith("header:")}
    environment = {name: value for name, value in given.items() if name not in own}
    predict = RequestMiddleware(vllm, settings.read(environment))
    headers = [(b"content-type", b"text/x")]
    headers += [(name[7:].encode(), value.encode()) for name, value in own.items()]
    if announced:
        headers.append((b"content-length", str(len(body)).encode()))
    scope: Any = {"type": "http", "path": path, "method": method, "headers": headers}
    scope[pacing.SCOPE] = stream_interval
    cuts = [body[i : i + 7] for i in range(0, len(body), 7)] or [b""]
    messages = iter(
        {"type": "http.request", "body": cut, "more_body": i < len(cuts) - 1}
        for i, cut in enumerate(cuts)
    )

    async def receive() -> Any:
        vllm.taken += 1
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(predict(scope, receive, send))
    return vllm, sent[0]["status"], json.loads(sent[1]["body"])

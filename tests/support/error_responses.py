"""What a client receives for an error through an ErrorResponder."""

import asyncio
import json
from typing import Any

from predict.errors.responder import ErrorResponder


def sent(path: str, status: int, body: bytes, **names: str) -> tuple[dict[bytes, bytes], Any]:
    """Headers and body that the client receives for such an error, which arrives in pieces."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def answer() -> None:
        wrapped = ErrorResponder(send, path)
        wrapped.names = names
        headers = [(b"content-length", b"5"), (b"content-type", b"text/x"), (b"retry-after", b"1")]
        await wrapped({"type": "http.response.start", "status": status, "headers": headers})
        for i in range(0, len(body), 1000):
            more = i + 1000 < len(body)
            piece = body[i : i + 1000]
            await wrapped({"type": "http.response.body", "body": piece, "more_body": more})

    asyncio.run(answer())
    start, whole = messages
    assert start["status"] == status
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(whole["body"])).encode()
    return headers, json.loads(whole["body"])

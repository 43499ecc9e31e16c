"""The small change of ASGI: bodies read, played back, asked of the application behind.

Promises: `receive` stays usable, so that a client's leaving still reaches the application.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_chunks(receive: Receive) -> list[bytes] | None:
    """The body of a request as it came; None when the client left before its end."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks


def replay(chunks: Sequence[bytes], receive: Receive) -> Receive:
    """A `receive` that gives a body of these chunks, then whatever comes after it."""
    remaining = list(reversed(chunks))

    async def replayed() -> Message:
        if not remaining:
            return await receive()
        body = remaining.pop()
        return {"type": "http.request", "body": body, "more_body": bool(remaining)}

    return replayed


def to_path(scope: Scope, path: str) -> Scope:
    return {**scope, "path": path, "raw_path": path.encode()}


def as_json(scope: Scope) -> Scope:
    """The scope of a request whose body is JSON, whatever its headers say or leave out."""
    kept = [header for header in scope["headers"] if header[0].lower() != b"content-type"]
    return {**scope, "headers": [*kept, (b"content-type", b"application/json")]}


def with_length(scope: Scope, length: int) -> Scope:
    """The scope of the same request with another body, of so many bytes."""
    described = (b"content-length", b"transfer-encoding")
    kept = [header for header in scope["headers"] if header[0].lower() not in described]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


async def ask(app: App, scope: Scope, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the application's own answer to a POST, on behalf of the request."""
    status, chunks = 0, []

    async def keep(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))

    async def never() -> Message:
        return await asyncio.Future()

    asked = with_length(to_path(scope, path), len(body))
    try:
        await app(asked, replay([body], never), keep)
    except Exception as error:  # which is made a 500 only outside of this package
        return 500, error_body(str(error), "InternalServerError", None, 500)
    return status, b"".join(chunks)


def error_body(message: str, kind: str, param: str | None, code: int) -> bytes:
    """An error in OpenAI's shape, as vLLM writes it."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="backslashreplace")


async def respond(send: Send, status: int, body: bytes) -> None:
    """Sends a whole response of JSON."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})

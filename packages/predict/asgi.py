"""ASGI helpers: read a request body, replay it, call the wrapped app.

Promises: `receive` stays usable, so that the application still learns when a client disconnects.
"""

import io
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping, Sequence
from typing import Any

Header = tuple[bytes, bytes]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientLeftError(Exception):
    """The client has disconnected."""


class TooLongError(ValueError):
    """A body is longer than it may be."""


async def read_body(receive: Receive, most: int | None) -> bytes:
    """The body of a request. `ClientLeftError` if the client disconnects before its end;
    `TooLongError` as soon as the body is known to have more than `most` bytes."""
    # In one block: thousands of pieces of a large body would leave lasting holes in the heap. It is
    # not copied at the end: 42 MB would block the event loop for 20 ms and more.
    body = io.BytesIO()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if most is not None and body.tell() + len(chunk) > most:
            raise TooLongError
        if not body.tell() and not more:
            return chunk
        body.write(chunk)
        if not more:
            return body.getvalue()


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header; empty if there is none. `name` is in lower case."""
    return next((value for key, value in scope["headers"] if key.lower() == name), b"")


def content_length(scope: Scope) -> int | None:
    """The bytes of a request's body, if its headers say so."""
    said = header(scope, b"content-length")
    return int(said) if said.isdigit() else None


def without(headers: Iterable[Header], names: Collection[bytes]) -> list[Header]:
    """The headers without those of these names, which are in lower case."""
    return [header for header in headers if header[0].lower() not in names]


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


def as_json(scope: Scope, names: Collection[bytes]) -> Scope:
    """The scope of a request whose body is JSON, whatever its headers say, without headers of these
    names."""
    kept = without(scope["headers"], {b"content-type", *names})
    return {**scope, "headers": [*kept, (b"content-type", b"application/json")]}


def from_foreign_page(scope: Scope) -> bool:
    """Whether another site's page sent this as a simple request (CORS), which JSON is not."""
    origin, host = header(scope, b"origin"), header(scope, b"host")
    plain = not header(scope, b"content-type").lower().startswith(b"application/json")
    return bool(origin) and plain and origin.partition(b"://")[2] != host


def with_length(scope: Scope, length: int) -> Scope:
    """The scope of the same request with another body, of `length` bytes."""
    kept = without(scope["headers"], (b"content-length", b"transfer-encoding"))
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


async def ask(
    app: App, scope: Scope, receive: Receive, path: str, body: bytes
) -> tuple[int, bytes]:
    """Status and body of the application's answer to a POST on behalf of a request whose own body
    has been received; `ClientLeftError` if its client disconnects meanwhile."""
    status, left, chunks = 0, False, []

    async def keep(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))

    async def leaving() -> Message:
        nonlocal left
        message = await receive()
        left = message["type"] == "http.disconnect"
        return message

    asked = with_length(to_path(scope, path), len(body))
    await app(asked, replay([body], leaving), keep)
    if left:
        raise ClientLeftError
    return status, b"".join(chunks)


async def respond(send: Send, status: int, body: bytes, more: Iterable[Header] = ()) -> None:
    """Sends a complete JSON response, with the `more` headers that do not describe its body."""
    headers = without(more, (b"content-type", b"content-length"))
    headers.append((b"content-type", b"application/json"))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})

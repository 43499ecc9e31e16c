"""A request that offers an upgrade keeps its body, and nothing in it is another request."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from predict import upgrades
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BODY = b'{"a": 1}\r\nUpgrade: x\r\n\r\nGET /inner HTTP/1.1\r\nHost: a\r\n\r\n'
OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"connection: upgrade\r\nupgrade: anything\r\n",
    b"Connection: Upgrade\r\nUPGRADE: h2c\r\n",
    b"",
]


@pytest.fixture
def installed() -> Iterator[None]:
    before = HttpToolsProtocol.data_received
    upgrades.install()
    yield
    HttpToolsProtocol.data_received = before  # type: ignore[method-assign]


async def exchange(*packets: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """What the application got, and what was answered."""
    got: list[tuple[str, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        got.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    config = uvicorn.Config(app, port=0, http="httptools", lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=None)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for packet in packets:
        writer.write(packet)
        await writer.drain()
        await asyncio.sleep(0.05)
    writer.write_eof()
    answered = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    server.should_exit = True
    await server.shutdown()
    return got, answered


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("apart", [True, False])
def test_the_body_of_an_offer_arrives_whole(offer: bytes, apart: bool) -> None:
    length = str(len(BODY)).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\n" + offer
    head += b"Content-Length: " + length + b"\r\nConnection: close\r\n\r\n"
    got, answered = asyncio.run(exchange(head, BODY) if apart else exchange(head + BODY))
    assert got == [("/predict", BODY)]
    assert answered.startswith(b"HTTP/1.1 200")
    assert answered.count(b"HTTP/1.1") == 1

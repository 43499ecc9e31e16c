"""Connections that come at once are accepted at once, and the port is closed at the end."""

import asyncio
import socket
from typing import Any

import pytest
import uvicorn
import uvloop
from predict import accepting

COUNT = 96


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    startup = uvicorn.Server.startup
    monkeypatch.setattr(uvicorn.Server, "startup", startup)  # put back at the end
    accepting.install()
    once = uvicorn.Server.startup
    accepting.install()
    assert uvicorn.Server.startup is once is not startup


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody sends a request")


async def turns_until_accepted() -> int:
    """Turns of the loop until a server has as many connections as came before its start."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with socket.create_server(("127.0.0.1", 0), backlog=2 * COUNT) as listening:
        address = listening.getsockname()
        clients = [socket.create_connection(address) for _ in range(COUNT)]
        await server.startup(sockets=[listening])
        turns = 0
        while len(server.server_state.connections) < COUNT and turns < 100 * COUNT:
            await asyncio.sleep(0)
            turns += 1
        await server.shutdown()  # without the socket, as vLLM does
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    for client in clients:
        client.close()
    return turns


def test_many_connections_are_accepted_in_few_turns(installed: None) -> None:
    assert uvloop.run(turns_until_accepted()) < COUNT / 2


def test_uvloop_accepts_one_in_a_turn() -> None:
    """Without this the module has become superfluous."""
    assert uvloop.run(turns_until_accepted()) >= COUNT

"""Has the event loop accept several connections at a time.

uvloop is based on libuv, which accepts one connection in each turn of its loop (libuv#3696), and a
turn includes the work for all other requests. Of a hundred connections that came at once (nginx
opens one for each request), the last waited for a hundred turns.

Promises: a turn accepts up to `AT_ONCE` connections, through as many handles of the listening
socket; uvicorn has a server for each handle, and closes them all.
"""

import functools
import socket
from typing import Any

from uvicorn.server import Server

AT_ONCE = 16  # some hundred slots in ten or twenty turns; each costs an accepting turn 1 µs or so


def install() -> None:
    startup = Server.startup
    if hasattr(startup, "__wrapped__"):
        return

    @functools.wraps(startup)
    async def with_more_handles(self: Any, sockets: list[socket.socket] | None = None) -> None:
        handles = [sock if not i else sock.dup() for sock in sockets or () for i in range(AT_ONCE)]
        await startup(self, handles or sockets)

    Server.startup = with_more_handles  # type: ignore[method-assign]

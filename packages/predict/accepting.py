"""Has the event loop accept several connections at a time.

uvloop stands on libuv, which accepts one connection in each turn of its loop (libuv#3696), and a
turn has the work of whoever else is served: of a hundred that come at once, and nginx opens one for
each request, the last waited for a hundred turns.

Promises: a turn accepts up to `AT_ONCE` connections, by as many handles of the listening socket;
uvicorn closes them with its servers, of which each handle is one.
"""

import functools
import socket
from typing import Any

from uvicorn.server import Server

AT_ONCE = 16  # some hundred slots in ten turns or twenty; each costs a turn that accepts 1 µs or so


def install() -> None:
    startup = Server.startup
    if hasattr(startup, "__wrapped__"):
        return

    @functools.wraps(startup)
    async def with_more_handles(self: Any, sockets: list[socket.socket] | None = None) -> None:
        handles = [sock if not i else sock.dup() for sock in sockets or () for i in range(AT_ONCE)]
        await startup(self, handles or sockets)

    Server.startup = with_more_handles  # type: ignore[method-assign]

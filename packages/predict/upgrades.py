"""Reads a request that offers an upgrade (`Upgrade: h2c`: curl --http2, Java's HttpClient) as if it
did not; otherwise its body is lost, or read as the next request.

httptools, uvicorn's parser, takes what follows the headers of such a request for another protocol.
HTTP lets a server ignore the offer (RFC 9110, 7.8), and this one has nothing to upgrade to.

Promises: only the name of an `Upgrade` header changes, and never inside a body.
"""

import functools
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

OFFER = re.compile(rb"\r\nupgrade:(?![ \t]*websocket[ \t]*\r)", re.IGNORECASE)


def ignored(data: bytes) -> bytes:
    """The beginning of a request, with its `Upgrade` header renamed, in as many bytes."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    renamed = OFFER.sub(lambda found: b"\r\nignored" + b":", head)
    return data if renamed == head else renamed + data[len(head) :]


def install() -> None:
    received = HttpToolsProtocol.data_received
    if hasattr(received, "__wrapped__"):
        return

    @functools.wraps(received)
    def data_received(self: Any, data: bytes) -> None:
        between = self.cycle is None or self.cycle.response_complete or not self.cycle.more_body
        received(self, ignored(data) if between else data)

    HttpToolsProtocol.data_received = data_received  # type: ignore[method-assign]

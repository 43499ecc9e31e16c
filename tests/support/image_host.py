"""A host of good and hostile images on loopback: a small server with hand-written HTTP."""

import asyncio
import base64
import gzip
import io
import ssl
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote

from PIL import Image

from local.standins.corpus import plain_image

RED, BLUE = (220, 30, 30), (30, 50, 220)
TLS_HANDSHAKE = b"\x16"
PAUSE = 0.2  # seconds between the bytes of a slow response


def picture(
    kind: str = "PNG", size: tuple[int, int] = (64, 64), colour: tuple[int, int, int] = RED
) -> bytes:
    stream = io.BytesIO()
    plain_image(colour, size).save(stream, kind)
    return stream.getvalue()


def blank(kind: str, size: tuple[int, int]) -> bytes:
    """An image that is small as sent, whatever its dimensions."""
    stream = io.BytesIO()
    Image.new("1", size).save(stream, kind)
    return stream.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def numbered(png: bytes, number: int) -> bytes:
    """The same picture in different bytes, so that it is in no cache."""
    after_header = 33
    text = chunk(b"tEXt", b"number\0%d" % number)
    return png[:after_header] + text + png[after_header:]


def bomb(width: int, height: int) -> bytes:
    """A PNG with all its pixels, whose size as sent is a thousandth of them."""

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    row = bytes(1 + (width + 7) // 8)
    many = 1 + (1 << 16) // len(row)  # rows at a time
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(row * many) for _ in range(height // many))
    rows += packer.compress(row * (height % many)) + packer.flush()
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class ImageHost:
    """`url(path)`: `_answer` defines the content. `open` counts open connections."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0
        self.asked: list[str] = []  # paths, in order
        self.pages: dict[str, bytes] = {"/red.png": picture()}

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def wait_until_left(self, seconds: float = 60) -> float:
        """Waits until no connection is open → the seconds it took."""
        started = time.monotonic()
        while self.open and time.monotonic() < started + seconds:
            time.sleep(0.01)
        assert not self.open
        return time.monotonic() - started

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await reader.readexactly(1)
                if request == TLS_HANDSHAKE:
                    writer.write(head(400))
                    return
                request += await reader.readuntil(b"\r\n\r\n")
                path = request.split()[1].decode()
                self.asked.append(path)
                # Notices at once that a client disconnects, even between two bytes.
                left = asyncio.create_task(reader.read())
                sending = asyncio.create_task(self._send(path, writer))
                await asyncio.wait((left, sending), return_when=asyncio.FIRST_COMPLETED)
                for task in (left, sending):
                    task.cancel()
                await asyncio.gather(left, sending, return_exceptions=True)
        finally:
            self.open -= 1
            writer.close()

    async def _send(self, path: str, writer: asyncio.StreamWriter) -> None:
        async for piece in self._answer(path):
            writer.write(piece)
            await writer.drain()

    async def _answer(self, asked: str) -> AsyncIterator[bytes]:
        path = asked.partition("?")[0]
        if page := self.pages.get(path):
            yield head(200, f"Content-Length: {len(page)}") + page
        elif path == "/red-then-blue":
            first = self.asked.count(asked) == 1
            yield head(200) + (picture() if first else picture(size=(128, 96), colour=BLUE))
        elif path == "/slow.png":
            yield head(200)
            await asyncio.sleep(PAUSE)
            yield picture()
        elif path.startswith("/redirect/"):
            left = int(path.rpartition("/")[2])
            yield head(302, f"Location: /redirect/{left - 1}" if left else "Location: /red.png")
        elif path.startswith("/to/"):
            yield head(302, f"Location: {unquote(path[4:])}")
        elif path.startswith("/status/"):
            yield head(int(path.rpartition("/")[2]), "Content-Length: 0")
        elif path == "/no-length":
            yield head(200) + picture()
        elif path == "/chunked":
            yield head(200, "Transfer-Encoding: chunked")
            for piece in (picture(), b""):
                yield b"%x\r\n%s\r\n" % (len(piece), piece)
        elif path == "/silent":
            await asyncio.sleep(600)
            yield b""
        elif path == "/slow-headers":
            yield b"HTTP/1.1 200 OK\r\n"
            while True:
                yield b"X-Drip: 1\r\n"
                await asyncio.sleep(PAUSE)
        elif path == "/drip":
            yield head(200, "Content-Length: 100000") + picture()[:8]
            while True:
                yield b"\0"
                await asyncio.sleep(PAUSE)
        elif path == "/stall":
            yield head(200, "Content-Length: 100000") + picture()[:50]
            await asyncio.sleep(600)
        elif path == "/10000-headers":
            lines = [f"X-Header-{number}: {number}" for number in range(10_000)]
            yield head(200, *lines) + picture()
        elif path == "/huge":
            yield head(200, f"Content-Length: {10**12}")
        elif path == "/endless":
            yield head(200)
            while True:
                yield bytes(1 << 16)
        elif path == "/endless-chunks":
            yield head(200, "Transfer-Encoding: chunked")
            while True:
                yield b"10000\r\n" + bytes(1 << 16) + b"\r\n"
        elif path == "/short":
            yield head(200, "Content-Length: 100000") + picture()
        elif path == "/wrong-length":
            yield head(200, "Content-Length: -5") + picture()
        elif path == "/gzip":
            bomb = gzip.compress(bytes(1 << 24))
            yield head(200, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}") + bomb
        elif path == "/html":
            page = b"<html>the secret of the page</html>"
            yield head(200, "Content-Type: text/html", f"Content-Length: {len(page)}") + page
        elif path == "/garbage":
            yield b"\0\xff not HTTP\r\n\r\n"
        elif path == "/many-headers":
            yield b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * (1 << 20) + b"\r\n\r\n"
        else:
            yield head(404, "Content-Length: 0")


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} .", "Connection: close", *lines, "", ""]).encode()


@contextmanager
def serving(
    tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0
) -> Iterator[ImageHost]:
    """An image host in a thread, on a free port unless one is given."""
    host, loop, ready = ImageHost(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(host.handle, address, port, ssl=tls)
        host.port = server.sockets[0].getsockname()[1]
        ready.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Future()
        server.close()

    serving = loop.create_task(serve())

    def run() -> None:
        loop.run_until_complete(serving)
        if rest := asyncio.all_tasks(loop):  # without any, gather() would find no loop
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield host
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()

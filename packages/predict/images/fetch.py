"""Fetches one image, from public addresses only and within bounds.

Promises: connects to no address that urls.py does not allow, which is looked at when the connection
is made, at each redirect again; nothing goes through a proxy and no cookie is kept; all
images of a request have `seconds` together, and those with the same URL the same bytes; a cancelled
fetch closes its connection at once. Refuses, with an `ImageError`, what is too large, encoded, not
there or too slow. Nothing is tried twice.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from predict.images.urls import (
    ImageError,
    Rules,
    check_address,
    check_url,
    is_literal,
    no_public_address,
)

REDIRECTS = 3
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Some hosts answer nobody without a name
HEADERS = {"User-Agent": "vLLM", "Accept": "image/*", "Accept-Encoding": "identity"}
MEGABYTE = 1 << 20  # as vLLM counts them

Lookup = Callable[..., Any]  # socket.getaddrinfo

# Threads of its own: a name server that does not answer holds up other images, and nothing else.
# It may hold a thread for 20 s (resolv.conf's `timeout` and `attempts`), whoever still waits; so a
# request has few of them at a time. Threads are started when they are needed.
_lookups = ThreadPoolExecutor(64, thread_name_prefix="image-names")
LOOKUPS_OF_A_REQUEST = 2


@dataclass
class Request:
    """What the images of one request share. vLLM fetches them all at once."""

    deadline: float | None = None  # on the monotonic clock, set by the first fetch
    running: int = 0
    started: int = 0
    decoding: asyncio.Lock = field(default_factory=asyncio.Lock)
    lookups: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(LOOKUPS_OF_A_REQUEST)
    )
    fetches: dict[str, "_Fetch"] = field(default_factory=dict)  # by URL, while somebody waits
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # URL → width, height, decoded

    def ends(self, seconds: float) -> float:
        if self.deadline is None:
            self.deadline = time.monotonic() + seconds
        return self.deadline

    @contextmanager
    def image(self) -> Iterator[int]:
        """While an image is loaded: its number among those of the request, from 1."""
        self.started = self.started + 1 if self.running else 1
        self.running += 1
        try:
            yield self.started
        finally:
            self.running -= 1

    async def once(self, url: str, fetch: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """What `fetch` returns or raises, the same for all who ask for the URL meanwhile. It is
        cancelled when the last of them is."""
        if (shared := self.fetches.get(url)) is None:
            shared = self.fetches[url] = _Fetch(asyncio.create_task(fetch()))
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                del self.fetches[url]
                shared.task.cancel()


@dataclass
class _Fetch:
    task: asyncio.Task[bytes]
    waiting: int = 0


# Set by the middleware for each request; what is outside of one is a request by itself.
_request: ContextVar[Request] = ContextVar("request")


def begin_request() -> Request:
    """What is fetched in this context, from now on, is of one request."""
    request = Request()
    _request.set(request)
    return request


def current_request() -> Request | None:
    return _request.get(None)


@dataclass(frozen=True)
class Limits:
    size: int  # bytes of an image as sent
    seconds: float  # for all images of a request together
    redirects: int = REDIRECTS


async def fetch(
    url: str,
    rules: Rules,
    limits: Limits,
    request: Request,
    lookup: Lookup = socket.getaddrinfo,
) -> bytes:
    """The bytes at `url`."""
    read = check_url(url, rules)
    names = _Names(rules, lookup, request)
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, force_close=True)
    try:
        async with (
            asyncio.timeout(request.ends(limits.seconds) - time.monotonic()),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                headers=HEADERS,
            ) as session,
        ):
            for _ in range(limits.redirects + 1):
                await names.look_up(read)
                async with session.get(read, allow_redirects=False) as response:
                    if response.status not in REDIRECT_STATUSES:
                        return await _body(response, limits)
                    read = check_url(_target(response), rules)
    except TimeoutError:
        raise ImageError(
            f"it could not be fetched in time: the images of a request have {limits.seconds:g} s "
            "together"
        ) from None
    except aiohttp.ClientSSLError:
        raise ImageError(f"{read.raw_host} has no valid TLS certificate") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{read.raw_host} could not be reached, or broke off") from None
    raise ImageError(f"its address redirects more than {limits.redirects} times")


def _target(response: aiohttp.ClientResponse) -> str:
    try:
        return str(response.url.join(URL(response.headers["Location"])))
    except (KeyError, ValueError):
        raise ImageError(f"{response.url.raw_host} redirects to nowhere") from None


async def _body(response: aiohttp.ClientResponse, limits: Limits) -> bytes:
    if response.status != 200:
        raise ImageError(f"{response.url.raw_host} answered with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageError(f"{response.url.raw_host} sent it compressed, which was not asked for")
    if (response.content_length or 0) > limits.size:
        raise too_large(limits)
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limits.size:
            raise too_large(limits)
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(limits: Limits) -> ImageError:
    return ImageError(f"it has more than {limits.size / MEGABYTE:g} MB, the most an image may have")


class _Names(AbstractResolver):
    """Gives a connector addresses that may be connected to. One that may not be spoils the name.

    Names are looked up before the connector asks, which would go on with a look-up, or stay in line
    for one, after its fetch was cancelled.
    """

    def __init__(self, rules: Rules, lookup: Lookup, request: Request) -> None:
        self.rules, self.lookup, self.request = rules, lookup, request
        self.found: list[ResolveResult] = []

    async def look_up(self, url: URL) -> None:
        host, port = url.raw_host or "", url.port or 0  # check_url has seen both
        if is_literal(url.host_subcomponent or ""):
            return
        async with self.request.lookups:
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    _lookups, self.lookup, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM
                )
            except (OSError, UnicodeError):
                found = []
        if not found:
            raise no_public_address(host)
        for _, _, _, _, address in found:
            check_address(address[0], port, host, self.rules)
        self.found = [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return self.found

    async def close(self) -> None:
        pass

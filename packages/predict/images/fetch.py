"""Fetches one image from a public address, within limits on time and size.

Promises: connects only to addresses that urls.py allows, checked on the address of the connection
itself, again for each redirect; uses no proxy and keeps no cookies; all images of a request share
`seconds`; a cancelled fetch closes its connection at once. Refuses, with an `ImageError`, a body
that is too large, compressed, missing or too slow. Nothing is retried.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from predict.images.batch import ImageBatch
from predict.images.urls import (
    FetchPolicy,
    ImageError,
    check_address,
    check_url,
    is_literal,
    no_public_address,
)

REDIRECTS = 3
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Some hosts refuse requests without a User-Agent
HEADERS = {"User-Agent": "vLLM", "Accept": "image/*", "Accept-Encoding": "identity"}
MEGABYTE = 1 << 20  # vLLM counts in MiB too

Lookup = Callable[..., Any]  # socket.getaddrinfo

# Separate threads: a name server that does not answer holds up other images, and nothing else. It
# may hold a thread for 20 s (resolv.conf's `timeout` and `attempts`), even if nobody waits any
# more, so a request has few of them at a time. Threads start when they are needed.
_lookups = ThreadPoolExecutor(64, thread_name_prefix="image-resolver")


@dataclass(frozen=True)
class ImageLimits:
    size: int  # bytes of an image as sent
    seconds: float  # for all images of a request together
    redirects: int = REDIRECTS


async def fetch(
    url: str,
    policy: FetchPolicy,
    limits: ImageLimits,
    batch: ImageBatch,
    lookup: Lookup = socket.getaddrinfo,
) -> bytes:
    """The bytes at `url`; `ImageError` if it may not or cannot be fetched."""
    read = check_url(url, policy)
    resolver = PinnedResolver(policy, lookup, batch)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    try:
        async with (
            asyncio.timeout(batch.ends(limits.seconds) - time.monotonic()),
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
                await resolver.pin(read)
                async with session.get(read, allow_redirects=False) as response:
                    if response.status not in REDIRECT_STATUSES:
                        return await _read_body(response, limits, batch)
                    read = check_url(_redirect_target(response), policy)
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
        raise ImageError(
            f"{read.raw_host} could not be reached, or closed the connection early"
        ) from None
    raise ImageError(f"its address redirects more than {limits.redirects} times")


def _redirect_target(response: aiohttp.ClientResponse) -> str:
    try:
        return str(response.url.join(URL(response.headers["Location"])))
    except (KeyError, ValueError):
        raise ImageError(f"{response.url.raw_host} redirects without a valid Location") from None


async def _read_body(
    response: aiohttp.ClientResponse, limits: ImageLimits, batch: ImageBatch
) -> bytes:
    if response.status != 200:
        raise ImageError(f"{response.url.raw_host} answered with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageError(
            f"{response.url.raw_host} sent it with a Content-Encoding, which was not asked for"
        )
    if (response.content_length or 0) > limits.size:
        raise too_large(limits)
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > limits.size:
            raise too_large(limits)
        await batch.download(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(limits: ImageLimits) -> ImageError:
    return ImageError(f"it has more than {limits.size / MEGABYTE:g} MB, the most an image may have")


class PinnedResolver(AbstractResolver):
    """Gives aiohttp the addresses that were checked; one bad address refuses the whole name.

    The look-up is done before aiohttp asks for it: aiohttp would continue it, or leave it queued,
    after the fetch was cancelled."""

    def __init__(self, policy: FetchPolicy, lookup: Lookup, batch: ImageBatch) -> None:
        self.policy, self.lookup, self.batch = policy, lookup, batch
        self.addresses: list[ResolveResult] = []

    async def pin(self, url: URL) -> None:
        host, port = url.raw_host or "", url.port or 0  # check_url requires both
        if is_literal(url.host_subcomponent or ""):
            return
        async with self.batch.lookups:
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    _lookups, self.lookup, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM
                )
            except (OSError, UnicodeError):
                found = []
        if not found:
            raise no_public_address(host)
        for _, _, _, _, address in found:
            check_address(address[0], port, host, self.policy)
        self.addresses = [
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
        return self.addresses

    async def close(self) -> None:
        pass

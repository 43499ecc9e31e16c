"""Fetching, from a real host on loopback; only the name server is of the test's own making."""

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from predict.images.fetch import fetch
from predict.images.urls import FetchPolicy, ImageError, read_policy

from tests.support.fetching import BRIEF, LIMITS, answers, batch, get
from tests.support.image_host import ImageHost, picture, serving

LOOPBACK = IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    "path", ["/red.png", "/no-length", "/chunked", "/redirect/0", "/redirect/2"]
)
def test_an_image_is_fetched(host: ImageHost, policy: FetchPolicy, path: str) -> None:
    assert get(host.url(path), policy) == picture()
    assert get(host.url(path, "images.example"), policy, lookup=answers("127.0.0.1"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/redirect/3", "redirects more than 3 times"),
        ("/to/http://127.0.0.2/", "no public address"),
        ("/to/http://169.254.169.254/latest/meta-data", "no public address"),
        ("/to/http://[::1]/", "no public address"),
        ("/to/file:///etc/passwd", "must begin with https"),
        ("/to/data:image/png;base64,AAAA", "must begin with https"),
        ("/to/http://me:it@example.com/", "credentials"),
        ("/to/http://example.com:22/", "port 22"),
        ("/to/http://2130706433/", "usual form"),
        ("/to//\\169.254.169.254/", "malformed|status 404"),
        ("/status/301", "redirects without a valid Location"),
        ("/status/304", "status 304"),
        ("/status/404", "status 404"),
        ("/status/503", "status 503"),
        ("/status/204", "status 204"),
        ("/huge", "more than 1 MB"),
        ("/endless", "more than 1 MB"),
        ("/endless-chunks", "more than 1 MB"),
        ("/gzip", "Content-Encoding"),
        ("/short", "could not be reached, or closed the connection early"),
        ("/wrong-length", "could not be reached, or closed the connection early"),
        ("/garbage", "could not be reached, or closed the connection early"),
        ("/many-headers", "could not be reached, or closed the connection early"),
    ],
)
def test_a_bad_answer_is_refused_at_once(
    host: ImageHost, policy: FetchPolicy, path: str, message: str
) -> None:
    asked = len(host.asked)
    started = time.monotonic()
    with pytest.raises(ImageError, match=message):
        get(host.url(path), policy)
    assert time.monotonic() - started < LIMITS.seconds / 2
    paths = host.asked[asked:]
    assert len(paths) == len(set(paths))  # nothing is tried twice
    host.wait_until_left()


@pytest.mark.parametrize("path", ["/silent", "/drip", "/slow-headers"])
def test_an_answer_that_drips_ends_in_time(host: ImageHost, policy: FetchPolicy, path: str) -> None:
    with pytest.raises(ImageError, match=r"in time: the images of a request have 0\.5 s "):
        get(host.url(path), policy, BRIEF)
    host.wait_until_left()


def test_redirects_share_the_time(host: ImageHost, policy: FetchPolicy) -> None:
    with pytest.raises(ImageError, match="in time"):
        get(host.url("/to//drip"), policy, BRIEF)


def test_the_images_of_a_request_share_the_time(host: ImageHost, policy: FetchPolicy) -> None:
    async def ten() -> tuple[float, list[Any]]:
        request, started = batch(), time.monotonic()
        images: list[Any] = []
        for _ in range(10):
            images += await asyncio.gather(
                *(fetch(host.url("/drip"), policy, BRIEF, request) for _ in range(2)),
                return_exceptions=True,
            )
        return time.monotonic() - started, images

    took, images = asyncio.run(ten())
    assert len(images) == 20
    assert all(isinstance(image, ImageError) for image in images)
    assert took < 5 * BRIEF.seconds


def test_a_cancelled_fetch_closes_its_connection(host: ImageHost, policy: FetchPolicy) -> None:
    async def leave() -> None:
        fetching = asyncio.create_task(fetch(host.url("/drip"), policy, LIMITS, batch()))
        while not host.open:
            await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        while host.open:  # before the loop ends, which would close it too
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), LIMITS.seconds / 2))


def both(host: ImageHost, policy: FetchPolicy, path: str, leaving: int) -> list[Any]:
    """What two images with one URL come to in a request, of which the first so many are cancelled
    once it is being fetched. The host has been left before the end if both were."""

    async def run() -> list[Any]:
        request, url = batch(), host.url(path)
        images = [
            asyncio.create_task(request.once(url, lambda: fetch(url, policy, LIMITS, request)))
            for _ in range(2)
        ]
        while leaving and not host.open:
            await asyncio.sleep(0.01)
        for image in images[:leaving]:
            image.cancel()
        got = await asyncio.gather(*images, return_exceptions=True)
        while leaving == 2 and host.open:  # before the loop ends, which would close it too
            await asyncio.sleep(0.01)
        assert request.downloads == {}
        return got

    return asyncio.run(asyncio.wait_for(run(), LIMITS.seconds / 2))


def test_a_url_is_fetched_once_for_all_images_that_have_it(
    host: ImageHost, policy: FetchPolicy
) -> None:
    asked = len(host.asked)
    assert both(host, policy, "/red-then-blue", 0) == [picture()] * 2
    assert len(host.asked) == asked + 1
    first, second = both(host, policy, "/status/404", 0)
    assert isinstance(first, ImageError)
    assert first is second
    assert len(host.asked) == asked + 2


def test_an_image_that_is_given_up_does_not_break_the_other(
    host: ImageHost, policy: FetchPolicy
) -> None:
    first, second = both(host, policy, "/slow.png", 1)
    assert isinstance(first, asyncio.CancelledError)
    assert second == picture()


def test_a_fetch_ends_with_the_last_image_that_waits_for_it(
    host: ImageHost, policy: FetchPolicy
) -> None:
    got = both(host, policy, "/drip", 2)
    assert [type(image) for image in got] == [asyncio.CancelledError] * 2


def test_no_proxy_is_used(
    host: ImageHost, policy: FetchPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(host.url("/red.png"), policy)


def test_a_refused_connection_is_the_client_s_affair(policy: FetchPolicy) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    policy = read_policy({"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{port}"})
    with pytest.raises(ImageError, match="could not be reached"):
        get(f"http://127.0.0.1:{port}/a.png", policy)


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS, with a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(LOOPBACK)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "host.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    secret = key.private_bytes(*form, serialization.NoEncryption())
    pem.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with serving(self_signed(tmp_path)) as secure:
        policy = read_policy({"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{secure.port}"})
        with pytest.raises(ImageError, match=r"127\.0\.0\.1 has no valid TLS certificate"):
            get(f"https://127.0.0.1:{secure.port}/red.png", policy)
        assert secure.asked == []


def test_a_host_that_speaks_no_tls_is_refused(host: ImageHost, policy: FetchPolicy) -> None:
    with pytest.raises(ImageError, match="TLS"):
        get(f"https://127.0.0.1:{host.port}/red.png", policy)

"""Which addresses are connected to: a real host on loopback, and only the name server a fake."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from predict.images.batch import LOOKUPS_PER_REQUEST
from predict.images.fetch import fetch
from predict.images.urls import FetchPolicy, ImageError, read_policy

from tests.support.fetching import BRIEF, LIMITS, answers, batch, get
from tests.support.image_host import ImageHost, picture


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.2",),
        ("10.0.0.1",),
        ("169.254.169.254",),
        ("::1",),
        ("::ffff:127.0.0.1",),
        ("64:ff9b::7f00:1",),
        ("fe80::1%1",),
        ("127.0.0.1", "10.0.0.1"),  # one that may not be reached spoils the name
        ("1.1.1.1",),  # public, though not on this port
    ],
    ids=str,
)
def test_a_name_of_a_private_address_is_refused(
    host: ImageHost, policy: FetchPolicy, addresses: tuple[str, ...]
) -> None:
    asked = len(host.asked)
    with pytest.raises(ImageError, match=r"^images\.example has no public address"):
        get(host.url("/red.png", "images.example"), policy, lookup=answers(*addresses))
    assert len(host.asked) == asked


def test_a_name_that_does_not_exist_is_refused_in_the_same_words(
    host: ImageHost, policy: FetchPolicy
) -> None:
    def unknown(*asked: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    url = host.url("/", "internal.example")
    messages = set()
    for lookup in (unknown, answers(), answers("10.0.0.1")):
        with pytest.raises(ImageError) as refused:
            get(url, policy, lookup=lookup)
        messages.add(str(refused.value))
    assert len(messages) == 1


def test_localhost_is_refused(host: ImageHost) -> None:
    policy = FetchPolicy(ports=frozenset({host.port}))
    for name in ("localhost", "LOCALHOST"):
        with pytest.raises(ImageError, match="no public address"):
            get(host.url("/red.png", name), policy)


def test_a_name_whose_address_changes_is_refused(host: ImageHost, policy: FetchPolicy) -> None:
    """The address that was looked at is the one connected to: no second answer is asked for."""
    asked: list[str] = []

    def rebinding(name: str, port: int, family: int, kind: int) -> Any:
        asked.append(name)
        return answers("127.0.0.1" if len(asked) == 1 else "10.0.0.1")(name, port, family, kind)

    url = host.url("/to/" + host.url("/red.png", "images.example"), "images.example")
    with pytest.raises(ImageError, match="no public address"):
        get(url, policy, lookup=rebinding)
    assert len(asked) == 2  # once for each connection
    asked.clear()
    assert get(host.url("/red.png", "images.example"), policy, lookup=rebinding)
    assert len(asked) == 1


def test_a_slow_name_server_counts_too(host: ImageHost, policy: FetchPolicy) -> None:
    def slow(*asked: Any) -> Any:
        time.sleep(1)
        return answers("127.0.0.1")(*asked)

    with pytest.raises(ImageError, match="in time"):
        get(host.url("/red.png", "images.example"), policy, BRIEF, lookup=slow)


class Silent:
    """A name server that does not answer until it is `released`."""

    def __init__(self) -> None:
        self.asked = 0
        self.released = threading.Event()

    def __call__(self, *asked: Any) -> Any:
        self.asked += 1
        self.released.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_names_that_are_not_answered_hold_up_no_other_request(
    host: ImageHost, policy: FetchPolicy
) -> None:
    silent = Silent()

    async def run() -> None:
        requests = [batch() for _ in range(8)]
        held = [
            asyncio.create_task(
                fetch(host.url("/", f"a{number}.example"), policy, LIMITS, request, silent)
            )
            for request in requests
            for number in range(8)
        ]
        while silent.asked < len(requests) * LOOKUPS_PER_REQUEST:
            await asyncio.sleep(0.01)
        url = host.url("/red.png", "images.example")
        assert await fetch(url, policy, LIMITS, batch(), answers("127.0.0.1")) == picture()
        for image in held:
            image.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    try:
        asyncio.run(asyncio.wait_for(run(), LIMITS.seconds))
    finally:
        silent.released.set()
    assert silent.asked == 8 * LOOKUPS_PER_REQUEST


def test_a_name_that_was_given_up_in_line_is_not_looked_up(
    host: ImageHost, policy: FetchPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent()

    async def run() -> None:
        held = [
            asyncio.create_task(
                fetch(
                    host.url("/", f"a{number}.example"),
                    policy,
                    LIMITS,
                    batch(),
                    silent,
                )
            )
            for number in range(4)
        ]
        while not silent.asked:
            await asyncio.sleep(0.01)
        for image in held:
            image.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    with ThreadPoolExecutor(1) as one:
        monkeypatch.setattr("predict.images.fetch._lookups", one)
        try:
            asyncio.run(asyncio.wait_for(run(), LIMITS.seconds))
        finally:
            silent.released.set()
    assert silent.asked == 1


def test_a_redirect_may_not_leave_the_allowed_hosts(host: ImageHost) -> None:
    policy = read_policy(
        {
            "ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{host.port}",
            "ALLOWED_IMAGE_HOSTS": "images.example",
        }
    )
    other = host.url("/red.png", "other.example")
    with pytest.raises(ImageError, match=r"other\.example is not among the hosts"):
        get(host.url(f"/to/{other}", "images.example"), policy, lookup=answers("127.0.0.1"))

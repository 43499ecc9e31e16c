"""Failures around the container: a full disk, a name server that changes its answers."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from local.processes import vllm_processes
from tests.support import load
from tests.support.container import Running
from tests.support.image_host import ImageHost, data_url, picture, serving
from tests.support.images import ask
from tests.support.name_server import NameServer, name_server
from tests.support.resilience import Report

MODEL = "pixtral-12b"
RED = "The image is red."
SECTION = "Surroundings that fail"

pytestmark = pytest.mark.parametrize("container", [MODEL], indirect=True)


def inside(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the container, as the user of this process."""
    (vllm,) = vllm_processes()
    words = ["nsenter", f"--target={vllm}", "--mount", "--pid", *command]
    return subprocess.run(words, capture_output=True, text=True)


def mount(*arguments: str) -> None:
    """mount(8) in the container, which needs root outside of it."""
    done = inside("mount", *arguments)
    if done.returncode:
        pytest.skip(f"this user cannot mount anything in the container: {done.stderr.strip()}")


def folder(path: str) -> Path:
    """A folder of the container, as seen from here."""
    (vllm,) = vllm_processes()
    return Path(f"/proc/{vllm}/root{path}")


@contextmanager
def full_tmp() -> Iterator[None]:
    mount("-o", "remount,size=1m", "/tmp")
    filler = folder("/tmp/filler")
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:  # no space left on device
            while file.write(bytes(4096)):
                pass
        yield
    finally:
        filler.unlink()
        mount("-o", "remount,size=50%", "/tmp")


def test_a_full_tmp_harms_nobody(
    container: Running, image_host: ImageHost, resilience: Report
) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    large = [{"role": "user", "content": "x" * 3_000_000}]
    image = {"type": "image_url", "image_url": {"url": image_host.url("/red.png")}}
    with full_tmp():
        outcomes = load.streams(MODEL, 64)
        assert ask(container, image) == RED
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": 7}}}
        answer = container.http.post(
            load.CHAT, json={"messages": hello, "response_format": schema, "max_tokens": 5}
        )
        refused = container.http.post(load.CHAT, json={"messages": large, "max_tokens": 1})
    outcomes += load.streams(MODEL, 1)  # it is empty again
    padded = data_url(picture(size=(48, 48)) + bytes(6 << 20))  # decoders skip the padding
    assert ask(container, {"type": "image_url", "image_url": {"url": padded}}) == RED
    assert [outcome for outcome in outcomes if not outcome.right] == []
    assert answer.json()["choices"][0]["message"]["content"] == "7"
    assert refused.status_code in (400, 413), refused.text
    resilience.row(
        SECTION,
        "/tmp is full",
        f"{len(outcomes)} of {len(outcomes)} streams, an image and a schema are answered right; a "
        f"body of 3 MB gets its {refused.status_code}; the last stream, and an image in a body of "
        "8 MB, came when it was empty again",
    )


@contextmanager
def name_servers(address: str) -> Iterator[None]:
    """Makes this name server the only one of the container."""
    file = folder("/tmp/resolv.conf")
    file.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
    mount("--bind", "/tmp/resolv.conf", "/etc/resolv.conf")
    try:
        yield
    finally:
        done = inside("umount", "/etc/resolv.conf")
        file.unlink()
    assert done.returncode == 0, done.stderr


@pytest.fixture
def names() -> Iterator[NameServer]:
    try:
        with name_server() as server:
            yield server
    except PermissionError:
        pytest.skip("this user cannot listen on port 53")


@pytest.mark.parametrize("first", ["allowed", "private"])
def test_a_name_whose_address_changes_is_never_followed_to_a_private_one(
    container: Running, names: NameServer, image_host: ImageHost, first: str, resilience: Report
) -> None:
    """The test allows 127.0.0.1; 127.0.0.2 stands for all private addresses."""
    both = ["127.0.0.1", "127.0.0.2"]
    names.answers = both if first == "allowed" else both[::-1]
    with serving(address="127.0.0.2", port=image_host.port) as private, name_servers(names.address):
        seen = []
        for number in range(4):
            url = image_host.url("/red.png", f"rebind-{number}.example")
            body = {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {"type": "image_url", "image_url": {"url": url}},
                        ],
                    }
                ],
                "max_tokens": 16,
            }
            response = container.http.post(load.CHAT, json=body)
            seen.append(response.status_code)
            if response.status_code == 400:
                message = response.json()["error"]["message"]
                assert "has no public address that may be fetched from" in message
            else:
                assert response.json()["choices"][0]["message"]["content"] == RED
        assert private.asked == []
        assert names.asked
    assert set(seen) == ({200} if first == "allowed" else {400})
    assert ask(container, {"type": "image_url", "image_url": {"url": data_url(picture())}}) == RED
    resilience.row(
        SECTION,
        f"A name's address changes after the first look-up, which gives the {first} one",
        f"{seen[0]}, and the private host is never connected to",
    )

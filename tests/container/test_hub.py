"""SOURCE=hub in the container: vLLM downloads from a gated hub, with a token no one else sees."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from deploy import cards
from deploy.config import render
from deploy.options import Options
from local import truss
from local.processes import START_SECONDS, command_lines, container_processes, launch, stop, tail
from local.standins import cache
from local.standins.corpus import chat, dialogues
from local.truss import URL, stage
from tests.support.container import Running, gone, leftovers, wait_for
from tests.support.hub import Hub, serving

CARD = cards.load("mistral-7b")
SECRET = Options().secret
FOLDERS = ("app", "dev/shm", "etc", "home", "packages", "run", "secrets", "tmp", "var")

alone = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)
pytestmark = pytest.mark.patient


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with the stand-in of Mistral 7B under the name and revision of the real one."""
    with serving(CARD.weights.repo, CARD.weights.revision, cache.ensure(CARD)) as started:
        yield started


@contextmanager
def starting(
    hub: Hub, secret: str | None, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The container of SOURCE=hub with that secret, or without if None; and its log."""
    config = yaml.safe_load(render(CARD, Options("hub")))
    config["environment_variables"]["HF_ENDPOINT"] = hub.url
    truss, given, log = folder / "hub-truss", folder / "secrets", folder / "log"
    truss.mkdir()
    given.mkdir()
    stage(yaml.safe_dump(config), truss)
    if secret is not None:
        (given / SECRET).write_text(secret)
    process = launch("--truss", str(truss), "--secrets", str(given), log=log)
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_on_a_command_line(token: str) -> bool:
    return any(token in word for _, words in command_lines() for word in words)


def files_with(token: str) -> list[str]:
    """The container's files that contain the token, except programs and libraries."""
    root = f"/proc/{container_processes()[0][0]}/root"
    folders = [f"{root}/{top}" for top in FOLDERS if Path(root, top).exists()]
    search = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--file=-"]
    done = subprocess.run([*search, *folders], input=token, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return [path.removeprefix(root) for path in done.stdout.splitlines()]


@alone
def test_vllm_downloads_from_the_hub_with_a_token_nobody_sees(
    container: None, hub: Hub, tmp_path: Path
) -> None:
    messages, answer = chat(next(iter(dialogues(images=False).values())))
    with starting(hub, f"{hub.member}\n", tmp_path) as (process, log):

        def is_ready() -> bool:
            assert not is_on_a_command_line(hub.member)
            return truss.is_ready()

        wait_for(is_ready, process, log, START_SECONDS)
        body = {"messages": messages, "max_tokens": 200, "temperature": 0}
        response = httpx.post(f"{URL}/predict", json=body, timeout=120, trust_env=False)
        assert response.json()["choices"][0]["message"]["content"] == answer
        weights = hub.files["consolidated.safetensors"].sha256
        assert ("GET", f"/storage/{weights}", 200) in hub.seen
        assert files_with(hub.member) == [f"/secrets/{SECRET}"]
        assert stop(process) == 0
        assert hub.member not in log.read_text(errors="replace")
    assert gone(), leftovers()


UNKNOWN = f"hf_{secrets.token_hex(17)}"
TERMS = f"accept the model's terms at https://huggingface.co/{CARD.weights.repo}"


@alone
@pytest.mark.parametrize(
    ("secret", "reason"),
    [(UNKNOWN, TERMS), (None, "is not set"), ("", "is empty")],
    ids=["wrong", "missing", "empty"],
)
def test_without_a_good_token_the_container_ends_with_one_line_that_says_what_to_set(
    container: None, hub: Hub, tmp_path: Path, secret: str | None, reason: str
) -> None:
    with starting(hub, secret, tmp_path) as (process, log):
        started = time.monotonic()
        while process.poll() is None:
            assert not is_on_a_command_line(UNKNOWN)
            assert time.monotonic() - started < START_SECONDS, tail(log)
            time.sleep(0.1)
        assert process.returncode == 1
    text = log.read_text(errors="replace")
    (line,) = [
        line for line in text.splitlines() if "https://app.baseten.co/settings/secrets" in line
    ]
    assert f"the Baseten secret {SECRET}" in line
    assert reason in line
    assert "Traceback" not in text
    assert UNKNOWN not in text
    assert "received SIGTERM indicating exit request" in text  # PID 1's message
    assert gone(), leftovers()


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_no_token_reaches_the_container_when_baseten_mirrors_the_weights(
    container: Running,
) -> None:
    processes = container_processes()
    assert processes
    for pid, _ in processes:
        assert b"HF_TOKEN" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert not Path(f"/proc/{pid}/root/secrets").exists()

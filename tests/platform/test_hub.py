"""The real huggingface_hub and predict/hub_token.py against the stand-in of the hub."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import safetensors.numpy
from huggingface_hub import HfApi, errors

from deploy.paths import ROOT
from tests.support.hub import Hub, serving

REPO, COMMIT = "maker/model", "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "consolidated.safetensors"
FILES = {
    "params.json": b'{"dim": 1}',
    "sub/notes.txt": b"notes",
    WEIGHTS: safetensors.numpy.save({"output": numpy.zeros((8, 4), "float32")}),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    for name, content in FILES.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with serving(REPO, COMMIT, tmp_path / "repo") as running:
        yield running


def download(hub: Hub, token: str | None, to: Path, revision: str = COMMIT) -> dict[str, bytes]:
    api = HfApi(endpoint=hub.url, token=token or False)
    found = Path(api.snapshot_download(REPO, revision=revision, cache_dir=to))
    files = [path for path in found.rglob("*") if path.is_file()]
    return {str(path.relative_to(found)): path.read_bytes() for path in files}


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_member_downloads_the_files_to_the_byte(hub: Hub, tmp_path: Path, revision: str) -> None:
    assert download(hub, hub.member, tmp_path / "cache", revision) == FILES


def test_large_files_come_from_another_host_without_the_token(hub: Hub, tmp_path: Path) -> None:
    download(hub, hub.member, tmp_path / "cache")
    sha256 = hub.files[WEIGHTS].sha256
    assert ("GET", f"/storage/{sha256}", 200) in hub.seen
    assert hub.answer(f"/storage/{sha256}", f"Bearer {hub.member}", None).status == 400


def test_a_part_of_a_large_file_can_be_asked_for(hub: Hub) -> None:
    read = HfApi(endpoint=hub.url, token=hub.member).parse_safetensors_file_metadata(REPO, WEIGHTS)
    assert read.tensors["output"].shape == [8, 4]
    assert 206 in [status for _, _, status in hub.seen]


def test_what_is_told_beside_the_files_is_public(hub: Hub) -> None:
    api = HfApi(endpoint=hub.url, token=False)
    assert api.model_info(REPO).sha == COMMIT
    assert set(api.list_repo_files(REPO, revision=COMMIT)) == set(FILES)


def refusal(hub: Hub, token: str | None, to: Path, revision: str = COMMIT) -> errors.HfHubHTTPError:
    with pytest.raises(errors.HfHubHTTPError) as refused:
        download(hub, token, to, revision)
    return refused.value


def test_nobody_downloads_without_a_token(hub: Hub, tmp_path: Path) -> None:
    refused = refusal(hub, None, tmp_path / "cache")
    assert isinstance(refused, errors.GatedRepoError)
    assert refused.response.status_code == 401


def test_nobody_downloads_who_has_not_accepted_the_terms(hub: Hub, tmp_path: Path) -> None:
    refused = refusal(hub, hub.outsider, tmp_path / "cache")
    assert isinstance(refused, errors.GatedRepoError)
    assert refused.response.status_code == 403
    assert "not in the authorized list" in str(refused)


def test_a_token_the_hub_does_not_know_is_refused(hub: Hub, tmp_path: Path) -> None:
    refused = refusal(hub, "hf_unknown", tmp_path / "cache")
    assert refused.response.status_code == 401
    assert "Invalid credentials in Authorization header" in str(refused)


def test_what_is_not_there_is_said_as_the_hub_says_it(hub: Hub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=hub.member)
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info(REPO, revision="v2")
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("maker/other")
    with pytest.raises(errors.EntryNotFoundError):
        api.hf_hub_download(REPO, "no.json", revision=COMMIT, cache_dir=tmp_path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return tmp_path / "hf_access_key"


def start_command(
    secret: Path, hub: str, revision: str = COMMIT
) -> subprocess.CompletedProcess[str]:
    """What of the start command comes before vLLM, with the words of the config."""
    words = ["-m", "predict.hub_token", str(secret), REPO, revision, "params.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "packages"), "HF_ENDPOINT": hub}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(secret.parent / "hf-home")}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=60
    )


def line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line of a run that found no token to use."""
    assert run.returncode == 1
    assert run.stdout == ""
    (only,) = run.stderr.splitlines()
    return only


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", " {} \n\n"])
def test_a_good_token_is_handed_on_without_white_space(hub: Hub, secret: Path, around: str) -> None:
    secret.write_bytes(around.format(hub.member).encode())
    run = start_command(secret, hub.url)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{hub.member}\n", "")
    assert hub.seen == [("HEAD", f"/{REPO}/resolve/{COMMIT}/params.json", 200)]


def test_a_refused_token_is_said_with_the_secret_and_the_terms(hub: Hub, secret: Path) -> None:
    secret.write_text("hf_not-the-one")
    told = line(start_command(secret, hub.url))
    assert told == (
        "predict.hub_token: Hugging Face refuses the token in the Baseten secret hf_access_key for "
        "maker/model (401: Invalid credentials in Authorization header): store a valid one under "
        "that name at https://app.baseten.co/settings/secrets, and accept the model's terms at "
        "https://huggingface.co/maker/model with the account it belongs to"
    )


def test_terms_not_accepted_are_said_as_the_hub_says_it(hub: Hub, secret: Path) -> None:
    secret.write_text(hub.outsider)
    told = line(start_command(secret, hub.url))
    assert "accept the model's terms at https://huggingface.co/maker/model" in told
    assert "you are not in the authorized list" in told
    assert hub.outsider not in told


@pytest.mark.parametrize("content", ["", "\n", " \r\n"])
def test_an_empty_secret_is_said_and_the_hub_is_not_asked(
    hub: Hub, secret: Path, content: str
) -> None:
    secret.write_text(content)
    assert line(start_command(secret, hub.url)) == (
        "predict.hub_token: the Baseten secret hf_access_key is empty: store a Hugging Face token "
        "under the name hf_access_key at https://app.baseten.co/settings/secrets, or push with "
        "SECRET=hf_access_token if it is there under that name"
    )
    assert hub.seen == []


def test_a_secret_that_is_not_set_is_said_with_where_to_set_it(hub: Hub, secret: Path) -> None:
    told = line(start_command(secret, hub.url))
    assert "the Baseten secret hf_access_key is not set" in told
    assert "at https://app.baseten.co/settings/secrets" in told


@pytest.mark.parametrize("content", ["hf_one\nhf_two", "my hf_one", "hf_ä", "hf_\x00one"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(
    hub: Hub, secret: Path, content: str
) -> None:
    secret.write_text(content)
    told = line(start_command(secret, hub.url))
    assert "is not a token, for it has spaces or odd characters" in told
    assert "hf_one" not in told
    assert hub.seen == []


def test_a_revision_the_hub_does_not_have_is_not_blamed_on_the_token(
    hub: Hub, secret: Path
) -> None:
    secret.write_text(hub.member)
    told = line(start_command(secret, hub.url, revision="v2"))
    assert "does not have what config.yaml names of maker/model (404: Invalid rev id: v2)" in told
    assert "secret" not in told


def test_a_hub_out_of_reach_is_said_within_a_minute(secret: Path) -> None:
    secret.write_text("hf_token")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        started = time.monotonic()
        told = line(start_command(secret, url))
        assert time.monotonic() - started < 60
    assert f"the Hugging Face hub at {url} is out of reach (ConnectError: " in told
    assert "or push with SOURCE=bdn" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("file", "tokens", "code"),
    [("params.json", 32000, 1), ("config.json", 32000, 1), ("config.json", 32768, 0)],
)
def test_the_vocabulary_of_own_weights_is_read_on_the_hub(
    file: str, tokens: int, code: int, tmp_path: Path
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / file).write_text(json.dumps({"vocab_size": tokens}))
    with serving(REPO, COMMIT, tmp_path / "repo") as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.member}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(tmp_path / "hf-home")}
        words = ["packages/start/check.py", f"{REPO}@{COMMIT}", "--vocabulary", "32768"]
        run = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    assert run.returncode == code, run.stderr
    assert (f"their vocab_size is {tokens}" in run.stderr) == bool(code)

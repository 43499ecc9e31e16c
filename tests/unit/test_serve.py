import socket
from pathlib import Path

import pytest
import yaml

from local import sandbox
from scripts import cards, render, serve
from scripts.render import Choices
from scripts.serve import CannotServeError


def test_a_taken_port_is_named_with_its_owner() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotServeError, match=f"port {port}, which nginx needs, is taken"):
            serve.check_machine({"nginx": port})


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CannotServeError, match="bwrap is not installed: apt-get install bubblew"):
        serve.check_machine({})


def test_weights_without_a_card_are_refused() -> None:
    config = {"weights": [{"source": "hf://someone/else@main", "mount_location": "/models/x"}]}
    with pytest.raises(CannotServeError, match=r"someone/else.*no card"):
        serve.mounts(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hf_access_key", "another"):
        (tmp_path / name).write_text("token")
    return tmp_path


def test_a_container_gets_the_secrets_its_config_asks_for(folder: Path) -> None:
    config = {"secrets": {"hf_access_key": None, "not_set": None}}
    assert serve.secrets(config, folder) == {"/secrets/hf_access_key": folder / "hf_access_key"}


def test_a_container_gets_no_token_when_baseten_mirrors_the_weights(folder: Path) -> None:
    config = yaml.safe_load(render.render(cards.load("mistral-7b"), Choices("bdn")))
    assert serve.secrets(config, folder) == {}


def test_a_config_with_secrets_but_no_folder_of_them_is_refused() -> None:
    with pytest.raises(CannotServeError, match=r"asks for the secret hf_access_key.*SECRETS="):
        serve.secrets({"secrets": {"hf_access_key": None}}, None)
    assert serve.secrets({}, None) == {}


def test_secrets_that_are_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotServeError, match="none is no folder"):
        serve.secrets({}, tmp_path / "none")


@pytest.mark.parametrize(
    ("workers", "cores", "expected"),
    [(2, [0, 1], "0|1"), (2, [0, 1, 2, 3], "0,1|2,3"), (2, [5], "5|5"), (4, [0, 1], "0|1|0|1")],
)
def test_workers_share_the_cores(workers: int, cores: list[int], expected: str) -> None:
    assert serve.bind(workers, cores) == expected


def test_the_local_variables_come_after_those_of_the_config() -> None:
    config = {
        "docker_server": {"start_command": "sh -c 'exec vllm serve m --tensor-parallel-size 2'"},
        "environment_variables": {"VLLM_CPU_KVCACHE_SPACE": "99", "PYTHONPATH": "/packages"},
    }
    environment = serve.environment(config)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["PYTHONPATH"] == "/packages"
    assert "|" in environment["VLLM_CPU_OMP_THREADS_BIND"]


def test_the_sandbox_runs_supervisord_as_pid_1_and_user_60000() -> None:
    words = sandbox.arguments({"/models/m": Path("/here")}, {"/app/config.yaml": 7}, 5)
    assert words[-3:] == sandbox.ENTRYPOINT
    assert "--as-pid-1" in words
    assert words[words.index("--uid") + 1] == "60000"
    at = words.index("/here")
    assert words[at - 1 : at + 2] == ["--ro-bind", "/here", "/models/m"]

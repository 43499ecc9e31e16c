import socket
from pathlib import Path

import pytest

from local import sandbox
from scripts import serve
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

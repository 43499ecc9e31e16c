import os
import socket
from pathlib import Path

import pytest
import yaml

from deploy import cards
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options
from deploy.start_command import start_command
from local import sandbox
from local.truss import (
    STRAIGHT_URL,
    URL,
    CannotServeError,
    Image,
    build,
    check_machine,
    check_precision,
    check_workers,
    checked,
    environment,
    mounts,
    secrets,
    stage,
    tensor_parallel_size,
    workers_of,
)
from scripts import serve
from scripts.serve import main


def test_a_taken_port_is_named_with_its_owner() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = rf"port {port}, which nginx needs, is taken by process {os.getpid()} \(.*pytest"
        with pytest.raises(CannotServeError, match=said):
            check_machine({"nginx": port})


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CannotServeError, match="bwrap is not installed: apt-get install bubblew"):
        check_machine({})


def test_weights_without_a_card_are_refused() -> None:
    config = {"weights": [{"source": "hf://someone/else@main", "mount_location": "/models/x"}]}
    with pytest.raises(CannotServeError, match=r"someone/else.*no card"):
        mounts(config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hf_access_key", "another"):
        (tmp_path / name).write_text("token")
    return tmp_path


def test_a_container_gets_the_secrets_its_config_asks_for(folder: Path) -> None:
    config = {"secrets": {"hf_access_key": None, "not_set": None}}
    assert secrets(config, folder) == {"/secrets/hf_access_key": folder / "hf_access_key"}


def test_a_container_gets_no_token_when_baseten_mirrors_the_weights(folder: Path) -> None:
    config = yaml.safe_load(render(cards.load("mistral-7b"), Options("bdn")))
    assert secrets(config, folder) == {}


def test_a_config_with_secrets_but_no_folder_of_them_is_refused() -> None:
    with pytest.raises(CannotServeError, match=r"asks for the secret hf_access_key.*SECRETS="):
        secrets({"secrets": {"hf_access_key": None}}, None)
    assert secrets({}, None) == {}


def test_secrets_that_are_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotServeError, match="none' is not a folder with a file per secret"):
        secrets({}, tmp_path / "none")


def test_the_local_variables_come_after_those_of_the_config() -> None:
    config = {
        "docker_server": {
            "start_command": "exec sh -c 'exec vllm serve m --tensor-parallel-size 2'"
        },
        "environment_variables": {"VLLM_CPU_KVCACHE_SPACE": "99", "PYTHONPATH": "/packages"},
    }
    variables = environment(config)
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert variables["PYTHONPATH"] == "/packages:/local"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in variables  # whose workers are processes


@pytest.mark.parametrize("precision", ["fp8", "8-bit", "4-bit"])
def test_what_only_a_gpu_computes_is_refused_here(precision: str) -> None:
    text = render(cards.load("mistral-7b"), Options(precision=precision))
    with pytest.raises(CannotServeError, match=r"needs a GPU, .*PRECISION=bf16 or fp16 here"):
        check_precision(yaml.safe_load(text))
    text = render(cards.load("mistral-7b"), Options(gpu="A100", precision="bf16"))
    check_precision(yaml.safe_load(text))


def test_workers_may_be_other_than_the_gpus() -> None:
    card = cards.load("mixtral-8x7b")
    for workers in (1, 2, 4):
        config = yaml.safe_load(render(card, Options(workers=workers)))
        assert tensor_parallel_size(config) == workers
        assert config["resources"]["accelerator"] == "A100:2"
    assert tensor_parallel_size(yaml.safe_load(render(card, Options()))) == 2


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1.5"])
def test_what_is_not_a_number_of_workers_is_refused(value: str) -> None:
    with pytest.raises(CannotServeError, match=f"TP='{value}' is not a number of workers"):
        workers_of(value)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Options(gpu="A100:8"), "8 workers do not divide .*KV heads, as 1, 2, 4 do; use TP=4 here"),
        (Options(workers=3), "3 workers do not divide"),
    ],
)
def test_workers_a_stand_in_cannot_have_are_refused(choices: Options, message: str) -> None:
    config = yaml.safe_load(render(cards.load("mistral-7b"), choices))
    with pytest.raises(CannotServeError, match=message):
        check_workers(config)


def test_a_config_that_is_run_as_it_is_is_advised_no_choice() -> None:
    config = yaml.safe_load(render(cards.load("mistral-7b"), Options(gpu="A100:8")))
    with pytest.raises(CannotServeError, match=r"first lines, with TP=4, in place of CONFIG=1"):
        check_workers(config, as_it_is=True)


def test_workers_that_divide_a_stand_in_are_accepted() -> None:
    card = cards.load("mistral-7b")
    for choices in (Options(), Options(gpu="A100:4"), Options(gpu="A100:8", workers=2)):
        check_workers(yaml.safe_load(render(card, choices)))


def test_a_start_command_of_another_kind_has_no_workers() -> None:
    command = {"start_command": "python3 server.py --tensor-parallel-size 2"}
    assert tensor_parallel_size({"docker_server": command}) == 1


def test_the_sandbox_runs_supervisord_as_pid_1_and_user_60000() -> None:
    words = sandbox.arguments({"/models/m": Path("/here")}, {"/app/config.yaml": 7}, 5)
    assert words[-3:] == sandbox.ENTRYPOINT
    assert "--as-pid-1" in words
    assert words[words.index("--uid") + 1] == "60000"
    at = words.index("/here")
    assert words[at - 1 : at + 2] == ["--ro-bind", "/here", "/models/m"]


@pytest.mark.parametrize("nginx", [True, False])
def test_the_image_is_laid_out_as_truss_s_dockerfile_says(nginx: bool, tmp_path: Path) -> None:
    config = render(cards.load("mistral-7b"), Options())
    stage(config, tmp_path)
    files, command, _ = build(tmp_path, nginx)
    assert files["/packages/start/nginx.sh"] == files["/usr/local/bin/nginx"]
    assert command == (sandbox.ENTRYPOINT if nginx else ["sh", "-c", start_command(config)])
    assert ("/etc/nginx/conf.d/proxy.conf" in files) == nginx
    assert ("/etc/supervisor/supervisord.conf" in files) == nginx
    image = Image(files, {}, {}, command)
    assert image.url == (URL if nginx else STRAIGHT_URL)


def test_config_1_runs_config_yaml_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to what is handed to the sandbox; tests/container/test_life.py has it run."""
    text = render(cards.load("mistral-7b"), Options(env="A=1"))
    edited = text.replace("--shutdown-timeout 15", "--shutdown-timeout 7")
    (tmp_path / "config.yaml").write_text(edited + '  PREDICT_LIMIT_TOOLS: "7"\n')
    images: list[Image] = []

    def run(image: Image, *_: object) -> int:
        images.append(image)
        return 0

    monkeypatch.setattr(serve, "CONFIG", tmp_path / "config.yaml")
    monkeypatch.setattr(serve, "check_machine", lambda *_: None)  # of the machine, not the config
    monkeypatch.setattr(serve, "mounts", lambda *_: {})  # which may train
    monkeypatch.setattr(serve, "run", run)
    assert main(["--config"]) == 0
    (image,) = images
    assert (image.environment["A"], image.environment["PREDICT_LIMIT_TOOLS"]) == ("1", "7")
    assert b"--shutdown-timeout 7" in image.files["/etc/supervisor/supervisord.conf"]
    assert main(["--config", "--gpu", "L4"]) == 2
    assert "leave the others out, or CONFIG=1" in capsys.readouterr().err


def test_several_folders_are_mounted_by_one_word_as_make_takes_it(tmp_path: Path) -> None:
    for name in ("a", "b,c"):
        (tmp_path / name).mkdir()
    both = f"/models/m={tmp_path}/a,/adapters/legal={tmp_path}/b,c"
    expected = {"/models/m": tmp_path / "a", "/adapters/legal": tmp_path / "b,c"}
    assert serve.mount_folders([both]) == expected
    assert serve.mount_folders(both.split(",", 1)) == expected
    with pytest.raises(UsageError, match=r"MOUNT='/x=none': there is no folder"):
        serve.mount_folders([f"{both},/x=none"])


@pytest.mark.parametrize("variable", ["", "NAME", "=value", "A B=c"])
def test_a_variable_that_is_none_is_refused(
    variable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--variable", variable]) == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "missing", "file"),
    [
        ("/models/m", "no config.json and no params.json", "params.json"),
        ("/adapters/legal", "no adapter_config.json", "adapter_config.json"),
    ],
)
def test_a_folder_without_what_is_mounted_there_is_refused(
    place: str, missing: str, file: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotServeError, match=f"MOUNT={place}=.*: there is {missing} in that"):
        checked(place, tmp_path)
    (tmp_path / file).touch()
    assert checked(place, tmp_path) == tmp_path

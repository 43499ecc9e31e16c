"""What packages/start does before vLLM runs, tried with the shell and the interpreter."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.paths import ROOT

START = ROOT / "packages" / "start"


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)


def prepared(folder: Path, then: str = "exec sh -c 'echo $PYTHONPATH'") -> str:
    """prepare.sh as it would be read where /packages and the machine's own paths are elsewhere."""
    places = {
        "/tmp/": f"{folder}/",
        "/packages": str(folder),
        "/proc/driver": f"{folder}/driver",
        "/cache/model": f"{folder}/shared",
        "/models/": f"{folder}/models/",
        "/app/": f"{folder}/app-",
    }
    if not (folder / "start").exists():
        shutil.copytree(START, folder / "start")
        for script in (folder / "start").glob("*.sh"):
            text = script.read_text()
            for place, here in places.items():
                text = text.replace(place, here)
            script.write_text(text)
    return f". {folder}/start/prepare.sh && {then}"


def test_the_model_infos_are_where_vllm_keeps_its_cache(tmp_path: Path) -> None:
    places = {
        tmp_path / "home" / ".cache" / "vllm": {"HOME": str(tmp_path / "home")},
        tmp_path / "xdg" / "vllm": {"HOME": "/", "XDG_CACHE_HOME": str(tmp_path / "xdg")},
        tmp_path / "root": {"HOME": "/", "VLLM_CACHE_ROOT": str(tmp_path / "root")},
    }
    for place, variables in places.items():
        assert shell(prepared(tmp_path), **variables).returncode == 0
        found = [
            f"{path.stem} {path.read_text()}" for path in sorted((place / "modelinfos").iterdir())
        ]
        assert "".join(found) == (START / "modelinfos").read_text()


def test_a_cache_that_cannot_be_written_does_not_keep_vllm_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shell(prepared(tmp_path), HOME="/", VLLM_CACHE_ROOT=str(tmp_path / "file"))
    assert done.returncode == 0
    assert f"no model infos in {tmp_path}/file" in done.stderr


def test_the_package_of_the_truss_stays_importable(tmp_path: Path) -> None:
    done = shell(prepared(tmp_path), HOME=str(tmp_path), PYTHONPATH="/packages")
    assert done.stdout.strip() == f"{tmp_path}/start:/packages"
    done = shell(prepared(tmp_path), HOME=str(tmp_path))
    assert done.stdout.strip() == f"{tmp_path}/start"


def test_a_folder_is_completed_with_a_config_json(tmp_path: Path) -> None:
    mounted, whole = tmp_path / "mounted", tmp_path / "whole"
    mounted.mkdir()
    completed = prepared(tmp_path, f"completed {mounted} {whole} 1000")
    (mounted / "params.json").write_text("{}")
    for _ in range(2):
        assert shell(completed, HOME=str(tmp_path)).returncode == 0
        assert (whole / "params.json").resolve() == mounted / "params.json"
        config = json.loads((whole / "config.json").read_text())
        assert config == {"model_type": "mistral", "max_position_embeddings": 1000}


def test_a_config_json_that_is_there_is_kept(tmp_path: Path) -> None:
    mounted, whole = tmp_path / "mounted", tmp_path / "whole"
    mounted.mkdir()
    completed = prepared(tmp_path, f"completed {mounted} {whole} 1000")
    (mounted / "config.json").write_text("its own")
    assert shell(completed, HOME=str(tmp_path)).returncode == 0
    assert (whole / "config.json").read_text() == "its own"


def test_the_garbage_collector_rests_through_the_start_and_is_seldom_thorough_afterwards() -> None:
    code = """
import gc
serving = (700, 10, 100)
assert gc.get_threshold() > serving
gc.collect(0)
gc.collect(1)
assert gc.get_threshold() > serving
gc.collect()
assert gc.get_threshold() == serving
assert gc.callbacks == []
"""
    environment = {**os.environ, "PYTHONPATH": str(START)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(("pid", "default"), [(1, False), (2, True)])
def test_pid_1_hears_a_stop_while_vllm_is_imported(pid: int, default: bool) -> None:
    code = f"""
import os, signal
os.getpid = lambda: {pid}
import importlib, sitecustomize
importlib.reload(sitecustomize)
assert (signal.getsignal(signal.SIGTERM) is signal.SIG_DFL) is {default}
"""
    environment = {**os.environ, "PYTHONPATH": str(START)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# --- nginx and a stop ---

# Hears SIGQUIT as nginx does, though sh has background processes ignore it.
NGINX = """#!/usr/bin/env python3
import signal, sys
if "-t" in sys.argv:
    sys.exit()
print(*sys.argv[1:], flush=True)
for number in (signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: sys.exit(print(signal.Signals(number).name)))
open("{ready}", "w").close()
while True:
    signal.pause()
"""
STOP = "kill -TERM $$"
TRAP, RUN = "trap stop TERM\n", '"$nginx" "$@" &\n'


def stopped(folder: Path, after: str, stop: str) -> subprocess.CompletedProcess[str]:
    """nginx.sh, which is told to stop by the line `stop` after the line `after`."""
    nginx, ready = folder / "nginx", folder / "ready"
    nginx.write_text(NGINX.format(ready=ready))
    nginx.chmod(0o755)
    (folder / "image.conf").write_text("events { worker_connections 768; }\n")
    text = (START / "nginx.sh").read_text()
    for old, new in {
        "/tmp/": f"{folder}/",
        "/usr/sbin/nginx": str(nginx),
        "/etc/nginx/nginx.conf": f"{folder}/image.conf",
        after: f"{after}{stop.format(ready=ready)}\n",
    }.items():
        assert old in text
        text = text.replace(old, new)
    words = ["sh", "-c", text, "nginx", "-g", "daemon off;"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("after", [TRAP, RUN], ids=["before nginx", "beside nginx's start"])
def test_a_stop_that_comes_early_ends_without_a_word(tmp_path: Path, after: str) -> None:
    done = stopped(tmp_path, after, STOP)
    assert (done.returncode, done.stderr) == (0, "")


def test_nginx_ends_gracefully_once_vllm_has_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as vllm, ThreadPoolExecutor() as pool:
        ended = pool.submit(vllm.wait)  # or it would stay as a zombie, which kill -0 finds
        (tmp_path / "model-server.pid").write_text(f"{vllm.pid}\n")
        try:
            done = stopped(tmp_path, RUN, f"until [ -e {{ready}} ]; do sleep 0.1; done; {STOP}")
        finally:
            vllm.kill()
        assert ended.result(timeout=10) == -signal.SIGTERM
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"-c {tmp_path}/nginx.conf -g daemon off;", "SIGQUIT"]
    assert (tmp_path / "nginx.conf").read_text() == "events { worker_connections 4096; }\n"


# --- what is said of the machine ---

NEW = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"
OLD = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023"


@pytest.mark.parametrize(
    ("version", "compatibility", "said"),
    [
        (NEW, "0", "start: driver 580.65.06, new enough for CUDA 13 (580)"),
        (OLD, "1", "start: driver 535.104.05, older than CUDA 13's 580: CUDA's compatibility"),
        (None, "0", "start: no NVIDIA driver is loaded"),
        ("NVRM version: who knows", "0", "start: no NVIDIA driver is loaded"),
    ],
)
def test_cuda_s_compatibility_libraries_are_used_with_an_older_driver_alone(
    tmp_path: Path, version: str | None, compatibility: str, said: str
) -> None:
    if version:
        (tmp_path / "driver" / "nvidia").mkdir(parents=True)
        (tmp_path / "driver" / "nvidia" / "version").write_text(f"{version}\nGCC version: 12.2.0")
    script = prepared(tmp_path, "echo $VLLM_ENABLE_CUDA_COMPATIBILITY")
    done = shell(script, HOME=str(tmp_path), VLLM_ENABLE_CUDA_COMPATIBILITY="0")
    assert done.stdout.strip() == compatibility
    assert said in done.stderr


def test_the_host_s_memory_is_said(tmp_path: Path) -> None:
    done = shell(prepared(tmp_path), HOME=str(tmp_path))
    assert re.search(r"^start: host memory: [\d.]+ GiB of [\d.]+ GiB free", done.stderr, re.M)


def test_the_file_system_and_size_of_each_mount_are_said(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "weights").write_bytes(b"\1" * 3_000_000)
    kind = shell(f"df --output=fstype {tmp_path} | tail -n 1").stdout.strip()
    done = shell(prepared(tmp_path), HOME=str(tmp_path))
    for name in ("one", "two"):
        said = rf"^start: {tmp_path}/models/{name} is on {kind}, (2\.9|3\.0)M$"
        assert re.search(said, done.stderr, re.M), done.stderr


# --- what a replica leaves for the next ---


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def ready_port(tmp_path: Path) -> Iterator[int]:
    """Where "vLLM" says that it is ready."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = f"docker_server:\n  server_port: {server.server_port}\n"
        (tmp_path / "app-config.yaml").write_text(config)
        yield server.server_port
        server.shutdown()


def replica(folder: Path, compiles: str, home: str = "home", inside: Sequence[str] = ()) -> str:
    """The log of a start in a fresh home, in which "vLLM" shows what is in its cache, compiles
    more, is then ready, and ends once that is kept, or is known not to be. `inside`: a command that
    runs it."""
    shutil.rmtree(folder / home, ignore_errors=True)
    cache = folder / home / ".cache" / "vllm" / "torch_compile_cache"
    (folder / home).mkdir()
    ready, curl = folder / home / "ready", folder / home / "curl"
    curl.write_text(
        f"#!/bin/sh\nfor _ in $(seq 6000); do [ -e {ready} ] && break; sleep 0.01; done\n"
        f'exec {shutil.which("curl")} "$@"\n'
    )
    curl.chmod(0o755)
    then = f"cat {cache}/graph 2>/dev/null; mkdir -p {cache}; echo {compiles} >{cache}/graph; "
    then += f"touch {ready}; wait"
    path = f"{curl.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder / home)}
    words = [*inside, "sh", "-c", prepared(folder, then)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_without_the_shared_folder_nothing_is_kept(tmp_path: Path) -> None:
    assert "compile cache: no /" in replica(tmp_path, "one")


def test_a_replica_finds_what_an_earlier_one_has_compiled(tmp_path: Path, ready_port: int) -> None:
    (tmp_path / "shared").mkdir()
    first = replica(tmp_path, "first")
    assert "compile cache: nothing in" in first
    assert "compile cache: kept in" in first
    second = replica(tmp_path, "second")
    assert second.startswith("first\n")
    assert "compile cache: found in" in second
    (tmp_path / "app-config.yaml").write_text(f"server_port: {ready_port}\nanother: 1\n")
    assert "compile cache: nothing in" in replica(tmp_path, "of another config")


@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_archive_is_not_taken_and_is_replaced(
    tmp_path: Path, ready_port: int, damage: str
) -> None:
    (tmp_path / "shared").mkdir()
    replica(tmp_path, "first")
    (archive,) = (tmp_path / "shared").iterdir()
    whole = archive.read_bytes()
    half = len(whole) // 2
    bad = whole[:half] if damage == "cut off" else whole[:half] + b"\0\0\0\0" + whole[half + 4 :]
    archive.write_bytes(bad)
    log = replica(tmp_path, "second")
    assert "is damaged and not used" in log
    assert "first" not in log
    assert replica(tmp_path, "third").startswith("second\n")


def test_a_draft_that_was_never_finished_is_not_taken(tmp_path: Path, ready_port: int) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".vllm-compiled.abcdef").write_bytes(b"half")
    assert "compile cache: nothing in" in replica(tmp_path, "first")


def test_two_replicas_at_once_leave_one_whole_archive(tmp_path: Path, ready_port: int) -> None:
    (tmp_path / "shared").mkdir()
    prepared(tmp_path)
    with ThreadPoolExecutor() as pool:
        logs = list(pool.map(lambda home: replica(tmp_path, home, home), ["one", "other"]))
    assert all("compile cache: kept in" in log for log in logs)
    (archive,) = (tmp_path / "shared").iterdir()
    assert subprocess.run(["gzip", "-t", archive]).returncode == 0


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path: Path, ready_port: int) -> None:
    (tmp_path / "shared").symlink_to("/proc")
    assert "/shared cannot be written, so nothing is kept" in replica(tmp_path, "one")


def test_a_full_folder_costs_nothing(tmp_path: Path, ready_port: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    full = ["bwrap", "--dev-bind", "/", "/", "--size", "4096", "--tmpfs", str(shared)]
    log = replica(tmp_path, "$(head -c 65536 /dev/urandom | base64 -w 0)", inside=full)
    assert "has no room or failed, so nothing is kept" in log

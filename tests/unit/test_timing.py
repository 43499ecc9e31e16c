"""`make test`: which runs it is made of, and the table at its end."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from deploy.paths import ROOT
from scripts import test
from scripts.test import BALANCE, WITH_VLLM, runs
from tests.support.layers import layer_of
from tests.support.timing import Timings

UNIT = [
    ["tests/unit", f"--ignore={WITH_VLLM}", f"--ignore={BALANCE}"],
    [WITH_VLLM, BALANCE],
]


def test_the_containers_have_a_network_each_and_the_platform_s_tests_beside_them() -> None:
    unit, (others,) = runs(None, None, cores=2, at_once=2)
    assert unit == UNIT
    assert others[:2] == ["tests/platform", "tests/container"]
    assert others[2].startswith("--tx=3*popen//python=")
    assert {"--dist=loadgroup", "--containers=2"} <= set(others)


def test_without_networks_the_containers_run_one_by_one_after_all_else() -> None:
    unit, platform, alone = runs(None, None, cores=2, at_once=1)
    assert unit == UNIT
    assert platform == [["tests/platform", "--numprocesses=2", "--dist=worksteal"]]
    assert alone == [["tests/container"]]


def test_the_unit_tests_take_all_cores() -> None:
    assert runs("unit", None, cores=1, at_once=1) == [[["tests/unit"]]]
    ((others, with_vllm),) = runs("unit", None, cores=5, at_once=1)
    assert ("--numprocesses=3" in others, "--numprocesses=2" in with_vllm) == (True, True)


def test_a_layer_is_one_group() -> None:
    assert runs("unit", None, cores=2, at_once=1) == [UNIT]
    (alone,) = runs("container", "pixtral-12b", cores=2, at_once=1)
    assert alone == [["tests/container", "--model=pixtral-12b"]]
    (((*apart,),),) = runs("container", "pixtral-12b", cores=2, at_once=2)
    assert (apart[0], apart[-1]) == ("tests/container", "--model=pixtral-12b")
    assert apart[1].startswith("--tx=2*popen//python=")


def test_of_runs_at_once_one_is_seen_and_then_the_others_and_none_that_failed_is_lost(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    first = [sys.executable, "-c", "import time; print('one', flush=True); time.sleep(0.2)"]
    second = [sys.executable, "-c", "print('two'); raise SystemExit(1)"]
    assert test.run([first, second]) == [0, 1]
    assert capfdbinary.readouterr().out == b"one\ntwo\n"
    interrupted = [sys.executable, "-c", f"raise SystemExit({test.INTERRUPTED})"]
    with pytest.raises(KeyboardInterrupt):
        test.run([first, interrupted])


def test_ctrl_c_before_the_last_has_started_leaves_none_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=[started, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        test.run([["first"], ["second"]])
    assert started.returncode == 0


def test_a_user_who_may_make_no_network_is_told_and_has_one_container_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = "raise SystemExit('PermissionError: [Errno 1] Operation not permitted')"
    monkeypatch.setattr(test, "MEMORY", 1)
    monkeypatch.setattr(test, "OWN_NETWORK", f'{sys.executable} -c "{refused}"')
    assert test.containers_at_once(cores=4) == 1
    assert "Operation not permitted" in capsys.readouterr().out
    assert test.containers_at_once(cores=1) == 1
    assert capsys.readouterr().out == ""


def test_two_networks_have_the_same_port_each() -> None:
    if test.containers_at_once(cores=4) == 1:
        pytest.skip("this user may make no network, or has memory for one container")
    bind = "import socket, sys; s = socket.create_server(('127.0.0.1', 8080)); print(flush=True)"
    command = [*shlex.split(test.OWN_NETWORK), "-c", f"{bind}; sys.stdin.read()"]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    assert [one.stdout and one.stdout.readline() for one in both] == [b"\n", b"\n"]
    for one in both:
        one.communicate()
    assert [one.returncode for one in both] == [0, 0]


def test_the_table_has_the_times_of_all_runs(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    Timings({"unit": 3.0}, {"tests/unit/test_a.py::test_b": 2.0}).add_to(file)
    start = {"test": "tests/container/test_c.py::test_d", "model": "mistral-7b", "seconds": 20.0}
    second = Timings({"container": 30.0}, {"tests/container/test_c.py::test_d": 25.0}, [start])
    second.add_to(file)
    show = [sys.executable, "-m", "tests.support.timing", str(file)]
    text = subprocess.run(show, cwd=ROOT, capture_output=True, text=True).stdout
    assert "wall time: unit 3 s, container 30 s; together 33 s" in text
    assert "1 container starts, 20 s until ready" in text
    assert text.index("tests/container/test_c.py::test_d") < text.index("tests/unit/test_a.py")


CONFTEST = """
from pathlib import Path
from tests.support.timing import TimingPlugin
def pytest_configure(config):
    config.pluginmanager.register(TimingPlugin(Path(__file__).with_name("timings.json")))
"""
STARTS = """
from tests.support.timing import container_start
def test_a():
    with container_start("mistral-7b"):
        pass
def test_b():
    with container_start("pixtral-12b"):
        pass
"""


def test_what_several_processes_tell_is_counted_once(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_starts.py").write_text(STARTS)
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "--numprocesses=2"]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds to import
    environment = {**os.environ, **alone, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "where the time went" not in done.stdout  # for it is shown once, of all runs
    found = Timings.read(tmp_path / "timings.json")
    assert sorted(start["model"] for start in found.starts) == ["mistral-7b", "pixtral-12b"]
    assert len(found.wall) == 1


def test_a_test_s_layer_is_its_folder() -> None:
    assert layer_of("tests/unit/test_a.py::test_b[c/d]") == "unit"

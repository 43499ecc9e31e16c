"""A user of the platform: a checkout of this repository, a home folder with the key, the commands.

Promises: commands run as a user runs them, in a copy of the working tree, so that nothing here is
overwritten; the key is in ~/.trussrc and in the environment, but on no command line.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.paths import ROOT
from tests.support.baseten import Baseten, Deployment

# Large files, and files that this machine's tools leave behind
NOT_COPIED = [".venv", ".cache", ".git", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info"]

# Files that a checkout in use contains beside those of this repository; they must not be uploaded
LEFT_HERE = [".env", "config.yaml.bak", ".git/config", ".cache/standin", "build/lib.py"]
LEFT_HERE += ["packages/predict/__pycache__/settings.pyc"]


@dataclass
class User:
    baseten: Baseten
    home: Path
    checkout: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "BASETEN_API_KEY": self.baseten.key,
            "TRUSS_NO_UPDATE_CHECK": "1",
            "NO_PROXY": "*",
            "COLUMNS": "200",
        }

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd or self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", *words)

    def truss(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(str(ROOT / ".venv" / "bin" / "truss"), *words, cwd=cwd)

    def push(self, *choices: str) -> Deployment:
        """`make push` with these choices → the deployment that arrived."""
        pushed = self.make("push", *choices)
        assert pushed.returncode == 0, pushed.stdout + pushed.stderr
        return self.baseten.newest


def move_in(baseten: Baseten, folder: Path) -> User:
    """A user with the right key and a checkout, both in `folder`."""
    home, checkout = folder / "home", folder / "checkout"
    home.mkdir()
    trussrc = home / ".trussrc"
    trussrc.touch(mode=0o600)
    trussrc.write_text(
        f"[baseten]\nremote_provider=baseten\nremote_url={baseten.url}\napi_key={baseten.key}\n"
    )
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (checkout / ".venv").symlink_to((ROOT / ".venv").resolve())
    for name in LEFT_HERE:
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("left here")
    return User(baseten, home, checkout)

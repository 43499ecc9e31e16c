"""Resolves the groups of pyproject.toml to requirements/*.txt: versions and hashes, no addresses.

Promises: versions in the files stay, unless a pin requires others; a package in both environments
has the same version in both, on the Pythons that vLLM supports; the deploy environment and uv have
wheels for each of PLATFORMS and each Python of set-up, or nothing is written.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from deploy.paths import ROOT
from scripts import setup
from scripts.command import command
from scripts.options import DEPLOY, WHOLE

PYPROJECT = ROOT / "pyproject.toml"
QUIET = ["--generate-hashes", "--no-annotate", "--no-header", "--quiet"]

# torch has its own file, as it comes from another index; the audio packages are CUDA builds.
LEFT_OUT = ("torch", "torchaudio", "torchcodec")

# The newest with wheels for Macs with an Intel processor; truss requires these packages.
INTEL_MAC = "sys_platform == 'darwin' and platform_machine == 'x86_64'"
LAST_ON_INTEL_MACS = ["cryptography<49", "libcst<1.9"]

# The Pythons and platforms where packages other than these have one version in both environments
BOTH = (
    "python_full_version >= '3.11' and (sys_platform != 'darwin' or platform_machine != 'x86_64')"
)

# uv's names: glibc 2.28 or newer, and macOS 13 or newer.
PLATFORMS = [
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
]


def torch_cpu() -> str:
    """The CPU build of the torch version pinned in pyproject.toml."""
    found = re.search(r'"(torch==[^"]+)"', PYPROJECT.read_text(encoding="utf-8"))
    return f"{found[1]}+cpu"  # type: ignore[index]


def versions(lock: str) -> list[str]:
    """The pins of a lock file, without their markers and hashes."""
    return re.findall(r"^([A-Za-z0-9][\w.\[\]-]*==[^ ;\\]+)", lock, re.MULTILINE)


def check_platforms(
    uv: Path, lock: Path, places: Sequence[str], variables: Mapping[str, str]
) -> None:
    """`SetupError`, with uv's message, for a platform that would have to build a package."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        install: list[str | Path] = [uv, "pip", "install", "--dry-run", "--target", folder]
        install += ["--no-deps", "--require-hashes", "--only-binary=:all:", *places]
        install += ["-r", lock, "-r", setup.UV]

        def check(pair: tuple[str, tuple[int, int]]) -> None:
            platform, (major, minor) = pair
            words = [f"--python-platform={platform}", f"--python-version={major}.{minor}"]
            setup.run([*install, *words], variables)

        list(pool.map(check, product(PLATFORMS, setup.PYTHONS[DEPLOY])))


@command("lock")
def main(options: argparse.Namespace) -> None:
    uv = setup.find_uv()
    places, variables = setup.uv_settings(setup.pip_settings())
    resolve: list[str | Path] = [uv, "pip", "compile", *QUIET]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drafts = {folder / lock.name: lock for lock in (*setup.LOCKS.values(), setup.TORCH)}
        for draft, lock in drafts.items():
            shutil.copy(lock, draft)
        whole, deploy = (folder / setup.LOCKS[it].name for it in (WHOLE, DEPLOY))
        links = [place for place in places if place.startswith("--find-links")]
        machine = ["--python-version=3.11", "--python-platform=x86_64-manylinux_2_28"]

        def resolve_with_torch(*words: str | Path) -> None:
            ways = setup.ways_to_torch(links)
            setup.run_first([[*resolve, *machine, *words, *way] for way in ways], variables)

        left_out = [f"--no-emit-package={name}" for name in LEFT_OUT]
        resolve_with_torch(PYPROJECT, "--group", "dev", *left_out, "--output-file", whole)
        wanted = folder / "torch.in"
        wanted.write_text(f"{torch_cpu()}\n", encoding="utf-8")
        resolve_with_torch(wanted, "--no-deps", "--output-file", folder / setup.TORCH.name)
        same = folder / "same-versions.txt"
        lines = [f"{pin} ; {BOTH}" for pin in versions(whole.read_text("utf-8"))]
        lines += [f"{bound} ; {INTEL_MAC}" for bound in LAST_ON_INTEL_MACS]
        same.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = [*resolve, PYPROJECT, "--group", "deploy", "--universal", "--python-version=3.10"]
        setup.run([*words, "--constraints", same, "--output-file", deploy], variables)
        check_platforms(uv, deploy, places, variables)
        for draft, lock in drafts.items():
            shutil.copy(draft, lock)
            print(f"wrote {lock.relative_to(ROOT)}")
    pythons = ", ".join(f"{major}.{minor}" for major, minor in setup.PYTHONS[DEPLOY])
    print(f"wheels to deploy are there for {', '.join(PLATFORMS)}, each with Python {pythons}")


if __name__ == "__main__":
    sys.exit(main())

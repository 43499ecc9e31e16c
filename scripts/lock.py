"""Resolves the groups of pyproject.toml to requirements/*.txt: versions and hashes, no addresses.

Promises: versions that are in the files stay, unless a pin asks for others; a package that both
environments have is of one version in both, on Pythons that vLLM's can have; to deploy, and for uv,
there are wheels for each of PLATFORMS and each Python of set-up, or nothing is written.
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

# Installed in a step of its own, from another place; and CUDA builds of what serves no audio here.
LEFT_OUT = ("torch", "torchaudio", "torchcodec")

# The newest that have wheels for Macs with an Intel processor; truss asks for these packages.
INTEL_MAC = "sys_platform == 'darwin' and platform_machine == 'x86_64'"
LAST_ON_INTEL_MACS = ["cryptography<49", "libcst<1.9"]

# Where the other packages are of one version in both
BOTH = (
    "python_full_version >= '3.11' and (sys_platform != 'darwin' or platform_machine != 'x86_64')"
)

# Of uv's names: glibc 2.28 or newer, and macOS 13 or newer.
PLATFORMS = [
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
]


def versions(lock: str) -> list[str]:
    """The pins of a lock file, without their markers and hashes."""
    return re.findall(r"^([A-Za-z0-9][\w.\[\]-]*==[^ ;\\]+)", lock, re.MULTILINE)


def check_platforms(
    uv: Path, lock: Path, places: Sequence[str], variables: Mapping[str, str]
) -> None:
    """`SetupError`, with what uv says, for a platform on which a package would have to be built."""
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
    resolve: list[str | Path] = [uv, "pip", "compile", PYPROJECT, *QUIET]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drafts = {folder / lock.name: lock for lock in setup.LOCKS.values()}
        for draft, lock in drafts.items():
            shutil.copy(lock, draft)
        whole, deploy = (folder / setup.LOCKS[it].name for it in (WHOLE, DEPLOY))
        words = [*resolve, "--group", "dev", "--python-version", "3.11"]
        words += ["--python-platform", "x86_64-manylinux_2_28", "--output-file", whole]
        words += [*(f"--no-emit-package={name}" for name in LEFT_OUT)]
        links = [place for place in places if place.startswith("--find-links")]
        setup.run_first([[*words, *way] for way in setup.ways_to_torch(links)], variables)
        same = folder / "same-versions.txt"
        lines = [f"{pin} ; {BOTH}" for pin in versions(whole.read_text("utf-8"))]
        lines += [f"{bound} ; {INTEL_MAC}" for bound in LAST_ON_INTEL_MACS]
        same.write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = [*resolve, "--group", "deploy", "--universal", "--python-version", "3.10"]
        setup.run([*words, "--constraints", same, "--output-file", deploy], variables)
        check_platforms(uv, deploy, places, variables)
        for draft, lock in drafts.items():
            shutil.copy(draft, lock)
            print(f"wrote {lock.relative_to(ROOT)}")
    pythons = ", ".join(f"{major}.{minor}" for major, minor in setup.PYTHONS[DEPLOY])
    print(f"wheels to deploy are there for {', '.join(PLATFORMS)}, each with Python {pythons}")


if __name__ == "__main__":
    sys.exit(main())

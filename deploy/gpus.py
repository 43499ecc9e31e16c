"""Reads and validates templates/gpus.yaml, the only reader of that file; parses GPU=.

Promises: a `Gpu` holds only validated values. Refuses, with a `GpuError` that lists the valid ones:
an unknown accelerator, and a count that Baseten does not offer.
"""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from deploy.cards import read
from deploy.errors import UsageError
from deploy.paths import ROOT
from deploy.sections import Count, Section, Source

GPUS = ROOT / "templates" / "gpus.yaml"

Gib = Annotated[float, Field(gt=0)]


class GpuError(UsageError):
    """A GPU= that is not available."""


class Sources(Section):
    instances: Source
    capability: Source
    batched_tokens: Source


class Facts(Section):
    """One accelerator; memory in GiB of one GPU."""

    memory: Count  # nominal
    usable: Gib  # what CUDA reports, all of which `--gpu-memory-utilization 1` takes
    source: Source
    capability: Annotated[float, Field(ge=7, lt=20)]  # CUDA compute capability
    counts: Annotated[list[Count], Field(min_length=1)]  # GPUs an instance may have
    listed: bool  # on Baseten's page of instance types
    batched_tokens: Count  # vLLM's default of --max-num-batched-tokens there

    @model_validator(mode="after")
    def _consistent(self) -> "Facts":
        if self.usable > self.memory:
            raise ValueError(f"usable {self.usable} must not be above memory {self.memory}")
        if sorted(set(self.counts)) != self.counts:
            raise ValueError(f"counts {self.counts} must rise")
        return self


class Gpu(Facts):
    name: str  # of Truss's `Accelerator`


class _File(Section):
    sources: Sources
    accelerators: Annotated[dict[str, Facts], Field(min_length=1)]


@cache
def load_all(path: Path = GPUS) -> tuple[Gpu, ...]:
    """Every accelerator, least usable memory first; `CardError` if the file is not valid."""
    content = read(path, _File)
    found = [Gpu(name=name, **dict(facts)) for name, facts in content.accelerators.items()]
    return tuple(sorted(found, key=lambda gpu: gpu.usable))


def load(name: str, where: str) -> Gpu:
    """The accelerator called `name`; `where` is the file and key that name it."""
    if name not in _names():
        raise GpuError(f"{where}: {_unknown(repr(name), name)}")
    return parse(name)[0]


def parse(spec: str) -> tuple[Gpu, int | None]:
    """`A100` → that GPU and None, as the count is open; `A100:2` → the GPU and 2. `2×A100`, as
    plans write it, and `A100x2` mean the same. Takes lower case, and hyphens for underscores."""
    spec = re.sub(r"^(\d+)[×xX](.+)$", r"\2:\1", spec.strip())
    name, colon, number = spec.partition(":")
    if _name(name) not in _names() and (much := re.fullmatch(r"([^:]+)[×xX*](\d+)", spec)):
        name, colon, number = much[1], ":", much[2]
    gpu = next((gpu for gpu in load_all() if gpu.name == _name(name)), None)
    if gpu is None:
        raise GpuError(f"GPU={_unknown(repr(spec), name)}, or as A100:2 how many")
    if not colon:
        return gpu, None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number) or int(number) not in gpu.counts:
        offered = ", ".join(str(count) for count in gpu.counts)
        raise GpuError(f"GPU={spec!r}: there are instances with {offered} {gpu.name}")
    return gpu, int(number)


def _name(written: str) -> str:
    return written.strip().upper().replace("-", "_").replace(" ", "_")


def _names() -> list[str]:
    return [gpu.name for gpu in load_all()]


def _unknown(shown: str, written: str) -> str:
    """The message about an unknown GPU name. H100-80GB means H100, not H100_40GB."""
    within = [name for name in _names() if _name(written).startswith(name)]
    near = sorted(within, key=len)[-1:] or difflib.get_close_matches(_name(written), _names(), n=1)
    meant = f"; did you mean {near[0]}? Use" if near else "; use"
    return f"{shown} is not known{meant} one of {', '.join(_names())}"

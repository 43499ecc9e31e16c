from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import gpus
from deploy.cards import CardError
from deploy.gpus import GpuError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "accelerators.T4.colour: unknown key"),
        ({"usable": 17.0}, "accelerators.T4: .*usable 17.0 must not be above memory 16"),
        ({"usable": "14"}, "accelerators.T4.usable: .*got '14'"),
        ({"counts": [2, 1]}, r"accelerators.T4: .*counts \[2, 1\] must rise"),
        ({"counts": []}, "accelerators.T4.counts: "),
        ({"source": "a friend"}, "accelerators.T4.source: .*https"),
    ],
)
def test_a_faulty_file_of_gpus_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = yaml.safe_load(gpus.GPUS.read_text())
    content["accelerators"]["T4"].update(change)
    (tmp_path / "gpus.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(CardError, match=f"gpus.yaml: {message}"):
        gpus.load_all(tmp_path / "gpus.yaml")


@pytest.mark.parametrize(
    "spec", ["", ":", ":2", "A100:2:2", "A100:x", "A100:-1", "A100:2.0", "A 1", "2x", "nope"]
)
def test_what_is_not_a_gpu_is_refused_and_quoted_as_it_was_typed(spec: str) -> None:
    with pytest.raises(GpuError, match=f"GPU='{spec}'"):
        gpus.parse(spec)


@pytest.mark.parametrize(
    ("spec", "name", "count"),
    [
        ("a100", "A100", None),
        ("A100-40GB", "A100_40GB", None),
        ("a100_40gb:2", "A100_40GB", 2),
        (" rtx-pro-6000:1 ", "RTX_PRO_6000", 1),
        ("2×A100", "A100", 2),
        ("4xl4", "L4", 4),
        ("A100x2", "A100", 2),
        ("rtx pro 6000*2", "RTX_PRO_6000", 2),
    ],
)
def test_gpus_are_known_as_people_write_them(spec: str, name: str, count: int | None) -> None:
    gpu, got = gpus.parse(spec)
    assert (gpu.name, got) == (name, count)


@pytest.mark.parametrize(
    ("spec", "meant"),
    [("A10", "A10G"), ("H100-80GB", "H100"), ("A100_80GB:2", "A100"), ("H20", "H200")],
)
def test_the_nearest_gpu_is_named(spec: str, meant: str) -> None:
    with pytest.raises(GpuError, match=rf"GPU='{spec}' is not known; did you mean {meant}\? Use"):
        gpus.parse(spec)
    with pytest.raises(GpuError, match="GPU='nope' is not known; use one of T4, "):
        gpus.parse("nope")

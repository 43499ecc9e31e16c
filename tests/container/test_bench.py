"""`make bench` against the real container: the figures exist, whatever their values."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import overhead
from bench.cpu import API_SERVER, ENGINE
from bench.metrics import METRICS
from deploy.paths import ROOT
from tests.support.baseten import Baseten
from tests.support.container import Running, gone, leftovers

SECONDS = 900  # a timeout: the test only checks that the figures exist


def make_bench(folder: Path, *words: str, variables: Mapping[str, str] | None = None) -> str:
    """Runs `make bench` with this output → its page; checks that its plots exist."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench", "--quick", "--output", str(folder), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "packages"), **(variables or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "benchmarks.md").read_text()
    linked = [line.split("(")[-1].rstrip(")") for line in page.splitlines() if line[:2] == "!["]
    assert linked
    for link in linked:
        assert ElementTree.parse(folder / link).getroot().tag.endswith("svg")
    assert not any(file.name.endswith(".partial.json") for file in folder.iterdir())
    return page


def figures(folder: Path, part: str) -> Any:
    return json.loads((folder / "benchmarks" / f"{part}.json").read_text())


def numbers(value: Any) -> Iterator[float]:
    """Every number in the rounds of a part."""
    if isinstance(value, (int, float)):
        yield value
    else:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


@pytest.mark.patient
@pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)
def test_a_quick_run_has_every_metric_of_its_part(container: None, tmp_path: Path) -> None:
    page = make_bench(tmp_path)
    assert gone(), leftovers()
    assert {file.stem for file in (tmp_path / "benchmarks").glob("*.json")} == {"overhead"}
    (rounds,) = figures(tmp_path, "overhead")["measured"].values()
    for done in rounds:
        assert list(done) == ["1", "16"]
        for by_way in done.values():
            assert by_way.keys() == {way.name for way in overhead.TEXT_WAYS}
            assert min(metrics[name] for metrics in by_way.values() for name in METRICS) > 0
        assert min(metrics[API_SERVER] for metrics in done["16"].values()) > 0
        assert done["16"][overhead.BARE.name][ENGINE] > 0
    assert "Is it as fast as bare vLLM?" in page


@pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)
def test_a_deployment_is_measured_through_the_platform(
    container: Running, baseten: Baseten, tmp_path: Path
) -> None:
    model = container.deployment.model
    url = f"{baseten.url}/{model.id}/v1"
    key = {"BASETEN_API_KEY": baseten.key, "NO_PROXY": "*"}
    page = make_bench(tmp_path, "--url", url, "--model", container.card.name, variables=key)
    assert baseten.key not in page
    assert min(numbers(figures(tmp_path, "deployment")["rounds"])) > 0

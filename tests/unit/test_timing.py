"""`make test`: which runs it is made of, and the table at its end."""

from pathlib import Path

import pytest

from deploy.errors import UsageError
from scripts.test import runs
from tests.support.timing import Timings, layer_of


def test_the_whole_suite_is_two_runs_of_which_one_is_spread_over_the_cores() -> None:
    spread, alone = runs(None, None, cores=2)
    assert spread == ["tests/unit", "tests/platform", "--numprocesses=2", "--dist=worksteal"]
    assert alone[0] == "tests/container"
    assert not any(word.startswith("--numprocesses") for word in alone)


def test_a_layer_is_one_run_and_a_model_is_for_containers_alone() -> None:
    assert [words[0] for words in runs("unit", None, cores=2)] == ["tests/unit"]
    assert runs("container", "pixtral-12b", 2) == [["tests/container", "--model=pixtral-12b"]]
    with pytest.raises(UsageError, match="LAYER=container"):
        runs("unit", "pixtral-12b", cores=2)


def test_the_last_table_has_the_times_of_all_runs(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    first = Timings({"unit": 3.0}, {"tests/unit/test_a.py::test_b": 2.0})
    first.write(file)
    start = {"test": "tests/container/test_c.py::test_d", "model": "mistral-7b", "seconds": 20.0}
    second = Timings({"container": 30.0}, {"tests/container/test_c.py::test_d": 25.0}, [start])
    text = "\n".join((Timings.read(file) + second).table())
    assert "wall time: unit 3 s, container 30 s; together 33 s" in text
    assert "1 container starts, 20 s until ready" in text
    assert text.index("tests/container/test_c.py::test_d") < text.index("tests/unit/test_a.py")


def test_a_test_s_layer_is_its_folder() -> None:
    assert layer_of("tests/unit/test_a.py::test_b[c/d]") == "unit"

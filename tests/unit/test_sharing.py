"""Several processes share the tests: which stay together, and what is begun first."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.sharing import GroupScheduling, arrange
from tests.support.turns import group_of


def item(name: str, **parameters: Any) -> Any:
    marks = {"watched": "undisturbed", "end": "ends_container", "busy": "busy", "calm": "patient"}
    mark = marks.get(name.rpartition("_")[2])
    found = SimpleNamespace(
        nodeid=f"tests/{name}", get_closest_marker=lambda name: mark if name == mark else None
    )
    if parameters:
        found.callspec = SimpleNamespace(params=parameters)
    return found


def suite() -> Iterator[Any]:
    yield item("unit/test_a.py::test_a")
    yield item("container/test_b.py::test_alone", container=None)
    yield item("container/test_b.py::test_c[mistral-7b]", container="mistral-7b")
    yield item("platform/test_d.py::test_e[x]", model="x")
    yield item("container/test_f.py::test_g[mistral-7b]", container="mistral-7b")
    yield item("container/test_f.py::test_h[pixtral-12b]", container="pixtral-12b")


def test_tests_of_a_container_stay_together_and_others_by_file() -> None:
    assert [group_of(it) for it in suite()] == [
        "tests/unit/test_a.py",
        "tests/container/test_b.py",
        "mistral-7b",
        "tests/platform/test_d.py",
        "mistral-7b",
        "pixtral-12b",
    ]


def test_large_containers_come_first_and_what_is_quick_last(tmp_path: Path) -> None:
    items = list(suite())
    arrange(items, tmp_path / "popen-gw0")
    assert [group_of(it) for it in items] == [
        "mistral-7b",
        "mistral-7b",
        "tests/container/test_b.py",
        "pixtral-12b",
        "tests/platform/test_d.py",
        "tests/unit/test_a.py",
    ]


def test_tests_that_watch_time_follow_each_other_before_the_end_of_their_container(
    tmp_path: Path,
) -> None:
    names = ("test_a", "test_b_watched", "test_c", "test_d_watched", "test_e_end")
    items = [item(f"container/test_f.py::{name}", container="mistral-7b") for name in names]
    apart = [item(f"container/test_g.py::{name}", container=None) for name in names]
    both = [*items, *apart]
    arrange(both, tmp_path / "popen-gw0")
    order = [it.nodeid.rpartition("_")[2] for it in both if it in items]
    assert order == ["a", "c", "watched", "watched", "end"]
    assert [it for it in both if it in apart] == apart


def test_what_keeps_all_cores_busy_comes_first_and_beside_it_what_does_not_mind(
    tmp_path: Path,
) -> None:
    names = ("test_a", "test_b_watched", "test_c_busy", "test_d_end")
    pixtral = [item(f"container/test_f.py::{name}", container="pixtral-12b") for name in names]
    mixed = [item(f"container/test_g.py::{name}", container=None) for name in ("test_a", "b_calm")]
    mistral = [item(f"container/test_h.py::test_{n}", container="mistral-7b") for n in range(9)]
    patient = [item("container/test_i.py::test_a_calm", container=None)]
    both = [*mistral, *mixed, *patient, *pixtral]
    arrange(both, tmp_path / "popen-gw0")
    order = ["busy", "a", "watched", "end"]
    assert [it.nodeid.rpartition("_")[2] for it in both[:4]] == order
    assert both[4:] == [*patient, *mistral, *mixed]


def test_the_scheduler_knows_the_groups_that_the_processes_wrote(tmp_path: Path) -> None:
    items = list(suite())
    arrange(items, tmp_path / "popen-gw0")
    factory = SimpleNamespace(getbasetemp=lambda: tmp_path)
    config = SimpleNamespace(_tmp_path_factory=factory, getvalue=lambda name: ["popen", "popen"])
    scheduler = GroupScheduling(config, SimpleNamespace(loadscopesched=print))
    assert [scheduler._split_scope(it.nodeid) for it in items] == [group_of(it) for it in items]

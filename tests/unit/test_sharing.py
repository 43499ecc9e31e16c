"""Several processes share the tests: which stay together, and what is begun first."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

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


def scheduler(folder: Path, items: list[Any], processes: int, containers: int | None = None) -> Any:
    """With all tests collected by each process, which only notes what it is sent."""
    arrange(items, folder / "popen-gw0")
    names = [it.nodeid for it in items]
    factory = SimpleNamespace(getbasetemp=lambda: folder)
    config = SimpleNamespace(
        _tmp_path_factory=factory,
        getvalue=lambda name: ["popen"] * processes,
        getoption={"containers": containers}.get,
        option=SimpleNamespace(loadscopereorder=False),
    )
    found = GroupScheduling(config, Producer("test", enabled=False))
    for number in range(processes):
        node = Node(f"gw{number}", names)
        found.add_node(node)
        found.add_node_collection(node, names)
    return found


class Node:
    def __init__(self, name: str, tests: list[str]) -> None:
        self.gateway, self.tests = SimpleNamespace(id=name), tests
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_the_scheduler_knows_the_groups_that_the_processes_wrote(tmp_path: Path) -> None:
    items = list(suite())
    found = scheduler(tmp_path, items, processes=2)
    assert [found._split_scope(it.nodeid) for it in items] == [group_of(it) for it in items]


def files(layer: str, sizes: list[int]) -> list[Any]:
    return [
        item(f"{layer}/test_{file}.py::test_{number}")
        for file, size in enumerate(sizes)
        for number in range(size)
    ]


def finish(found: Any, most: float = math.inf) -> None:
    """Each process runs what it is sent, one test after the other, in turns, until each has run
    `most`; its last test once it is to end."""
    done: Counter[Any] = Counter()
    moved = True
    while moved:
        moved = False
        for node in list(found.nodes):
            left = len(node.sent) - done[node]
            if done[node] < most and left > (0 if node.shutting_down else 1):
                done[node] += 1
                moved = True
                found.mark_test_complete(node, node.sent[done[node] - 1])


@pytest.mark.parametrize("containers", [[4] * 5, [1] * 7, [1, 9, 1, 2, 3], [1]])
@pytest.mark.parametrize("quick", [[4] * 3, [1] * 20, [1], []])
def test_only_as_many_processes_as_are_said_have_containers(
    tmp_path: Path, containers: list[int], quick: list[int]
) -> None:
    """And all tests are run, each by one process."""
    items = files("container", containers) + files("platform", quick)
    found = scheduler(tmp_path, items, processes=3, containers=2)
    nodes = found.nodes
    found.schedule()
    finish(found)
    assert sorted(index for node in nodes for index in node.sent) == [*range(len(items))]
    assert all(node.shutting_down for node in nodes)
    with_container = [
        node for node in nodes if any("container" in items[index].nodeid for index in node.sent)
    ]
    assert len(with_container) <= 2
    if quick and len(containers) > 2:
        assert nodes[2].sent  # meanwhile


@pytest.mark.parametrize("most", [1, 9])
def test_another_process_takes_over_the_containers_of_one_that_crashed(
    tmp_path: Path, most: int
) -> None:
    items = files("container", [4, 4, 4]) + files("platform", [2])
    found = scheduler(tmp_path, items, processes=2, containers=1)
    first, second = found.nodes
    found.schedule()
    finish(found, most)
    assert second.shutting_down  # there is nothing else
    replacement = Node("gw2", first.tests)
    found.remove_node(first)
    found.add_node(replacement)
    found.add_node_collection(replacement, first.tests)
    found.schedule()
    finish(found)
    assert replacement.shutting_down
    assert sorted(replacement.sent) == [*range(most, 12)]

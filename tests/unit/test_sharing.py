"""Several processes share the tests: which stay together, and what is begun first."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.sharing import GroupScheduling, arrange, group_of


def item(name: str, **parameters: Any) -> Any:
    callspec = SimpleNamespace(params=parameters)
    return SimpleNamespace(nodeid=f"tests/{name}", **({"callspec": callspec} if parameters else {}))


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


def test_the_scheduler_knows_the_groups_that_the_processes_wrote(tmp_path: Path) -> None:
    items = list(suite())
    arrange(items, tmp_path / "popen-gw0")
    factory = SimpleNamespace(getbasetemp=lambda: tmp_path)
    config = SimpleNamespace(_tmp_path_factory=factory, getvalue=lambda name: ["popen", "popen"])
    scheduler = GroupScheduling(config, SimpleNamespace(loadscopesched=print))
    assert [scheduler._split_scope(it.nodeid) for it in items] == [group_of(it) for it in items]

"""Distributes tests over several processes (scripts/test.py, `--dist=loadgroup`).

Promises: tests of a shared container stay together, and so do those of a file; of the container
tests the one that keeps all cores busy comes first, with those that may run with it, then the
largest groups, then the quick layers. With --containers=N only N processes at a time have tests of
containers, and the others run the quick layers meanwhile.
pytest-xdist 3.8 would put a group in a test's id, which pytest 9.2 no longer lets it change: the
processes write the groups to a file, and the scheduler reads that.
"""

import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.support.layers import LAYERS, layer_of
from tests.support.turns import (
    BUSY,
    PATIENT,
    ends_container,
    group_of,
    has,
    shares,
    undisturbed,
)

FILE = "groups.json"  # in the temporary folder of the whole run


def arrange(items: list[pytest.Item], basetemp: Path) -> None:
    """Sorts a process's tests by the order in which groups are to begin, and writes the groups.
    `basetemp`: the temporary folder of the process."""
    # undisturbed tests in a row share one turn (turns.py); those of a file keep their order
    items.sort(key=lambda it: (ends_container(it), undisturbed(it) and shares(it) is not None))
    items.sort(key=lambda item: not has(item, BUSY))
    groups = {item.nodeid: group_of(item) for item in items}
    sizes = Counter(groups.values())
    busy = {groups[item.nodeid] for item in items if has(item, BUSY)}
    patient = set(groups.values()) - {
        groups[item.nodeid] for item in items if not has(item, PATIENT)
    }

    def order(item: pytest.Item) -> tuple[int, bool, bool, int]:
        group = groups[item.nodeid]
        layer = -LAYERS.index(layer_of(item.nodeid))
        return layer, group not in busy, group not in patient, -sizes[group]

    items.sort(key=order)
    (basetemp.parent / FILE).write_text(json.dumps(groups))


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    @cached_property
    def groups(self) -> dict[str, str]:
        folder: Path = self.config._tmp_path_factory.getbasetemp()
        found: dict[str, str] = json.loads((folder / FILE).read_text())
        return found

    def _split_scope(self, nodeid: str) -> str:
        return self.groups[nodeid]

    def _assign_work_unit(self, node: WorkerController) -> None:
        """The first group of the queue that the process may run."""
        most = self.config.getoption("containers")
        others = sum(self.has_container(other) for other in self.nodes if other is not node)
        if most is not None and others >= most:
            quick = (group for group, tests in self.workqueue.items() if is_quick(tests))
            if (found := next(quick, None)) is None:
                node.shutdown()  # after what it still has
                return
            self.workqueue.move_to_end(found, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """A process runs its last test once it has another, or is to end: pytest-xdist 3.8 gives it
        one group, which may be of one test, or, after a crash, one that is done."""
        super()._reschedule(node)
        if not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            self._reschedule(node)

    def has_container(self, node: WorkerController) -> bool:
        """Whether tests of a container are left to the process."""
        groups = self.assigned_work[node].values()
        return any(not all(tests.values()) and not is_quick(tests) for tests in groups)


def is_quick(tests: Iterable[str]) -> bool:
    """Whether a group of tests needs no container."""
    return "container" not in map(layer_of, tests)

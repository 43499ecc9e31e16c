"""What tests/support/load.py measures."""

import os
import tempfile

import pytest

from local import processes
from tests.support import load


def test_what_is_in_the_container_s_dev_shm_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has ended is passed over."""
    ended = (2**22 + 1, ["ended"])  # above the largest number of a process
    here = (os.getpid(), ["here"])
    monkeypatch.setattr(processes, "container_processes", lambda: [ended, here])
    before = load.shared_memory()
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(8 << 20))
        file.flush()
        assert load.shared_memory() > before + (4 << 20)
    monkeypatch.setattr(processes, "container_processes", lambda: [])
    assert load.shared_memory() == 0

"""Which processes belong to a container."""

import os
from pathlib import Path

import pytest

from local import processes


def test_nothing_outside_of_the_sandbox_counts_where_the_machine_has_an_app_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: True)  # /app/config.yaml, say
    assert os.getpid() not in [pid for pid, _ in processes.container_processes()]

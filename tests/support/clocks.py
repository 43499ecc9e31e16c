"""A clock that a test moves on."""

from types import SimpleNamespace
from typing import Any

import pytest


def clock_of(monkeypatch: pytest.MonkeyPatch, module: Any) -> Any:
    """Time for this module alone: with a global patch, an event loop in a thread would sleep for
    hours."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now

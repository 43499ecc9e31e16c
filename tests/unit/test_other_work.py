"""What took too long is tried again only where other work had the cores."""

import subprocess
import sys
import time

import pytest

from tests.support import other_work

SPIN = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """CPU seconds: of all, and of ours."""
    seconds = [0.0, 0.0]
    monkeypatch.setattr(other_work, "busy_seconds", lambda: seconds[0])
    monkeypatch.setattr(other_work, "own_seconds", lambda: seconds[1])
    return seconds


@pytest.mark.parametrize(("others", "tries"), [(0.0, 1), (1000.0, 3)])
def test_only_beside_other_work_is_it_tried_again(
    work: list[float], others: float, tries: int
) -> None:
    found: list[int] = []

    def measure() -> int:
        work[0] += 500 + others
        work[1] += 500
        time.sleep(0.01)
        found.append(len(found))
        return found[-1]

    assert other_work.tried_again(measure, lambda _: False) == tries - 1
    assert len(found) == tries
    found.clear()
    assert other_work.tried_again(measure, lambda number: number == 0) == 0
    assert len(found) == 1


def test_what_is_started_here_is_our_own_also_when_it_has_ended() -> None:
    own, busy = other_work.own_seconds(), other_work.busy_seconds()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert other_work.own_seconds() - own > 0.9
    assert other_work.busy_seconds() - busy > 0.9

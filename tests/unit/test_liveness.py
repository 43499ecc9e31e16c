"""When an engine is said to hang."""

import asyncio
import os
from typing import Any

import pytest
from predict import liveness
from predict.liveness import EngineWatchdog, StallDetector
from predict.vllm_internals import PROGRESS


def looks(*each: tuple[float, bool, int]) -> float:
    """Seconds stalled after looks at (seconds, busy, mark)."""
    progress = StallDetector(longest=2)
    for now, busy, mark in each:
        progress.look(busy, mark, now)
    return progress.stalled


def test_work_without_progress_adds_up() -> None:
    assert looks((100, True, 1), (101, True, 1), (102.5, True, 1)) == 2.5


def test_a_first_look_knows_of_nothing() -> None:
    assert looks((1e9, True, 1)) == 0


def test_any_progress_ends_it() -> None:
    assert looks((0, True, 1), (1, True, 1), (2, True, 2)) == 0


def test_an_engine_without_work_is_well() -> None:
    assert looks((0, False, 1), (1, False, 1), (2, False, 1)) == 0


def test_that_its_clients_leave_is_not_progress() -> None:
    left = (0, True, 1), (1, True, 1), (2, False, 1), (3, False, 1)
    assert looks(*left) == 1
    assert looks(*left, (4, True, 1), (5, True, 1)) == 2
    assert looks(*left, (4, False, 2)) == 0


def test_what_was_idle_counts_only_from_its_first_request() -> None:
    assert looks((0, False, 1), (1, True, 1)) == 0
    assert looks((0, False, 1), (1, True, 1), (2, True, 1)) == 1


def test_time_that_was_not_watched_does_not_count() -> None:
    assert looks((0, True, 1), (1, True, 1), (500, True, 1)) == 3


def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        errored = False
        asked = 0

        def get_num_unfinished_requests(self) -> int:
            self.asked += 1
            if self.asked == 2:
                raise KeyError("a secret")
            return 1

    said: list[Any] = []
    monkeypatch.setattr(liveness, "read", lambda names: {("a", ""): 1.0})
    monkeypatch.setattr(liveness.log, "error", lambda *args: said.append(args))

    async def hang() -> str | None:
        watch = EngineWatchdog(Engine(), 0.05, 5, lambda: False)
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if watch.fault():
                break
        watch.end()
        return watch.fault()

    assert "the engine hangs" in (asyncio.run(hang()) or "")
    assert said == [("%s while looking at the engine", "KeyError")]


def test_a_prefilled_chunk_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        errored = False

        def get_num_unfinished_requests(self) -> int:
            return 1

    metrics = {(name, ""): 1.0 for name in PROGRESS}
    monkeypatch.setattr(liveness, "read", lambda names: dict(metrics))

    async def stalled() -> tuple[float, float]:
        watch = EngineWatchdog(Engine(), 8, 5, lambda: False)
        for now in (100, 101, 102):
            watch._look(now)
        before = watch.progress.stalled
        metrics["vllm:kv_cache_usage_perc", ""] = 2.0  # all that a chunk changes
        watch._look(103)
        watch.end()
        return before, watch.progress.stalled

    assert asyncio.run(stalled()) == (2, 0)


class LeftError(Exception):
    """Instead of the end of this process."""


@pytest.mark.parametrize(("since", "ended"), [(6.9, False), (7.1, True)])
def test_what_runs_longer_than_a_stop_gives_it_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, since: float, ended: bool
) -> None:
    def leave(status: int) -> None:
        raise LeftError(status)

    class Engine:
        errored = True  # vLLM has ended it

        def get_num_unfinished_requests(self) -> int:
            return 1

    monkeypatch.setattr(os, "_exit", leave)

    async def stop() -> bool:
        watch = EngineWatchdog(Engine(), None, 5, lambda: True)
        watch._look(100)
        try:
            watch._look(100 + since)
        except LeftError as left:
            return left.args == (0,)
        finally:
            watch.end()
        return False

    assert asyncio.run(stop()) is ended

"""Watches whether the engine makes progress.

vLLM's own /health only reads a flag, so it calls a hung engine healthy.

Promises: the engine counts as hung once it has had requests and done nothing for `stall_seconds`,
until it does anything: generates a token, prefills a chunk, starts or ends a request. Clients that
disconnect are not progress. The engine is watched whether or not anybody probes; time in which the
server itself stood still does not count. Nothing is done per request: vLLM's own counters are read
once a second. The engine's death ends the process with status 1. A stop ends it too, with status 0
and whatever still runs: vLLM would otherwise wait for clients that get nothing more.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from prometheus_client import REGISTRY

from predict.pacing import TokenClock
from predict.vllm_internals import GENERATED, LOGGER, PROGRESS, RUNNING, WAITING

LOOK_SECONDS = 1.0  # between two looks, or a tenth of `stall_seconds` if that is less

# From the engine's death to the end of the process. vLLM ends by itself within 5 s, unless a client
# that does not read its answer holds it up.
END_SECONDS = 8.0
# From the end of a stop's drain time, when vLLM has killed the engine, to the end of the process:
# time to send the last output.
CUT_SECONDS = 2.0

DIED = "the engine has died"

log = logging.getLogger(LOGGER)


class StallDetector:
    """Seconds of work without progress; the time between two looks counts up to `longest`
    seconds."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.stalled = 0.0
        self.busy = False
        self._mark: Hashable = None
        self._at = 0.0

    def look(self, busy: bool, mark: Hashable, now: float) -> None:
        """`mark` changes with any progress; `now` in seconds."""
        if mark != self._mark:
            self.stalled = 0.0
        elif busy and self.busy:
            # if the server itself was held up, the engine is not to blame
            self.stalled += min(now - self._at, self.longest)
        self.busy, self._mark, self._at = busy, mark, now


def read(names: Iterable[str]) -> dict[tuple[str, str], float]:
    """vLLM's metrics of these names, by name and reason ("" for most), summed over engines."""
    found: dict[tuple[str, str], float] = {}
    for metric in REGISTRY.restricted_registry(names).collect():
        for sample in metric.samples:
            key = (sample.name, sample.labels.get("reason", ""))
            found[key] = found.get(key, 0.0) + sample.value
    return found


class EngineWatchdog:
    """Watches vLLM's engine from inside the API server.

    `engine` is vLLM's EngineClient. `asked_to_stop` says whether a stop was requested; what runs
    then has `drain_seconds`."""

    def __init__(
        self,
        engine: Any,
        stall_seconds: float | None,
        drain_seconds: float,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self.engine = engine
        self.stall_seconds = stall_seconds
        self.drain_seconds = drain_seconds
        self.asked_to_stop = asked_to_stop
        every = LOOK_SECONDS if stall_seconds is None else min(LOOK_SECONDS, stall_seconds / 10)
        self.every = every
        self.progress = StallDetector(longest=2 * every)
        self.clock = TokenClock()
        self._dead_since: float | None = None
        self._stopping_since: float | None = None
        self._task = asyncio.create_task(self._run())

    def fault(self) -> str | None:
        """What is wrong with the engine; None while all is well."""
        if self.engine.errored:
            return "the engine has died; this server is ending"
        if self.stall_seconds is not None and self.progress.stalled >= self.stall_seconds:
            return (
                f"the engine hangs: it has requests and has done nothing for "
                f"{self.progress.stalled:.0f} s (PREDICT_STALL_SECONDS={self.stall_seconds:g})"
            )
        return None

    def end(self) -> None:
        """The server has ended. vLLM would exit with status 0 even if its engine had died."""
        self._task.cancel()
        if self.engine.errored and not self.asked_to_stop():
            _exit(1, DIED)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            try:
                self._look(time.monotonic())
            except Exception as error:  # one look that failed; the next may not
                log.error("%s while looking at the engine", type(error).__name__)
            if self.progress.stalled and not self.progress.busy:
                await self._ask()

    async def _ask(self) -> None:
        """Finds out whether a stalled engine is well again, now that its clients have disconnected
        and nothing else would show it: the engine's own loop has to answer."""
        with contextlib.suppress(Exception):  # no answer in time; or it is dead, which _look sees
            await asyncio.wait_for(self.engine.is_paused(), self.every)
            self.progress.stalled = 0.0

    def _look(self, now: float) -> None:
        if self.asked_to_stop():
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > self.drain_seconds + CUT_SECONDS:
                _exit(0, "what still ran after the stop is cut off")
        elif self.engine.errored:
            self._dead_since = self._dead_since or now
            if now - self._dead_since > END_SECONDS:
                _exit(1, DIED)
        marks = read(PROGRESS)
        # The engine does not work on a request that waits for its grammar to be compiled.
        deferred = marks.get((WAITING, "deferred"), 0)
        busy = bool(marks) and self.engine.get_num_unfinished_requests() > deferred
        self.progress.look(busy, tuple(marks.items()), now)
        made, running = (marks.get((name, ""), 0.0) for name in (GENERATED, RUNNING))
        self.clock.look(made, running, now)


def _exit(status: int, why: str) -> None:
    """Ends the process at once: there is nothing left to clean up."""
    print(f"predict.liveness: {why}; ending with status {status}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

"""Is the engine making progress? vLLM's own /health reads a flag, so that a hung engine is healthy.

Promises: the engine is said to hang once it has had requests and has done nothing for so long, and
no longer as soon as it does anything: a token, a chunk of a prefill, a request taken up or let go.
That its clients leave is not progress. It is watched whether anybody probes or not; while the
server itself stood still, nothing counts. Nothing is done for a request: once a second vLLM's own
counters are read. The death of the engine ends the process, with status 1; a stop ends it too, with
status 0 and whatever still runs, for vLLM would then wait for clients to whom nothing more comes.
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

LOOK_SECONDS = 1.0  # between two looks, or a tenth of a shorter `stall_seconds`

# From the engine's death to the end of the process. vLLM ends by itself within 5 s, unless a client
# that does not read its answer holds it up.
END_SECONDS = 8.0
# From the end of the time a stop gives to what runs, after which vLLM has killed the engine, to the
# end of the process: for the last words to be sent.
CUT_SECONDS = 2.0

DIED = "the engine has died"

log = logging.getLogger(LOGGER)


class StallDetector:
    """Seconds of work without progress, from looks at most `longest` seconds apart."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.stalled = 0.0
        self.busy = False
        self._mark: Hashable = None
        self._at = 0.0

    def look(self, busy: bool, mark: Hashable, now: float) -> None:
        """`mark` is anything that changes with progress; `now` in seconds."""
        if mark != self._mark:
            self.stalled = 0.0
        elif busy and self.busy:
            # the time of a server that was held up itself is not the engine's
            self.stalled += min(now - self._at, self.longest)
        self.busy, self._mark, self._at = busy, mark, now


def read(names: Iterable[str]) -> dict[tuple[str, str], float]:
    """vLLM's metrics of these names, by name and reason ("" for most), engines added up."""
    found: dict[tuple[str, str], float] = {}
    for metric in REGISTRY.restricted_registry(names).collect():
        for sample in metric.samples:
            key = (sample.name, sample.labels.get("reason", ""))
            found[key] = found.get(key, 0.0) + sample.value
    return found


class EngineWatchdog:
    """Looks at vLLM's engine from inside the API server.

    `engine` is vLLM's EngineClient; `asked_to_stop` says whether a death was asked for,
    and what runs then has `drain_seconds`.
    """

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
        """The server has ended. vLLM would end with status 0 though its engine had died."""
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
        """Whether an engine that stalled is well again, now that its clients have left and nothing
        else would show it: its own loop has to answer."""
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
    """Ends the process at once: there is nothing left that could be put in order."""
    print(f"predict.liveness: {why}; ending with status {status}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

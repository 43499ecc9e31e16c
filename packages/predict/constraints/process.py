"""Tries constraints on the output before vLLM sees them: `python -m predict.constraints.process`.

Promises: each constraint is rewritten so that xgrammar can read it (rewriting.py) and tried
(trial.py) in a fork of this process, limited to `CPU_SECONDS` and `MEMORY_BYTES`. Whatever happens
to the fork, this process answers with a verdict. While it is idle, it compiles what many
constraints have in common, for the forks to use.

Talks in lines of JSON: first {"tokenizer": xgrammar's TokenizerInfo, "separators": …}, then
requests {"id", "kind", "text"}; answers {"id", "error": text or null, "words": kind and text for
the engine, or null for those that were sent, "mask_seconds": of the slowest mask, "keep": whether
another trial would say the same, "keep_seconds": for how long, if not for good, "seconds": CPU,
"in_time": false if the machine was too busy for a verdict}.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator

from predict.constraints import common, rewriting
from predict.constraints.trial import Json, Trial, TrialError

PR_SET_PDEATHSIG = 1  # linux/prctl.h

CPU_SECONDS = 4  # of a fork; RLIMIT_CPU counts whole seconds …
READING_SECONDS = 2  # … of them while it reads
WALL_SECONDS = 20.0  # after these the machine is too busy for a verdict
MEMORY_BYTES = 1 << 30  # beyond what this process has mapped
SLICE_SECONDS = 0.1  # CPU; a fork that takes more makes way for those that have had less
CALM_SECONDS = 2.0  # without such a fork, before forks have the usual priority again
MOST_WAITING = 256  # constraints that wait for their slice; the newest goes next
AGAIN_SECONDS = 60.0  # before what was too slow to read or compile may be tried again
MOST_LATER = 8  # constraints that have had their slice and wait for more

END = b"\n"  # ends what a fork writes

NO_VERDICT: Json = {
    "error": None,
    "words": None,
    "mask_seconds": 0.0,
    "keep": False,
    "in_time": False,
    "seconds": 0.0,
}


def fork(trial: Trial, kind: str, text: str) -> tuple[int, int]:
    """Forks a process that tries a constraint → its pid, and where to read its verdict."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        return pid, reader
    try:
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime)  # none in a fork, by POSIX
        most = spent + CPU_SECONDS

        def has_read() -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))

        resource.setrlimit(resource.RLIMIT_CPU, (spent + READING_SECONDS, most + 1))
        with open("/proc/self/statm") as sizes:
            mapped = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_RDWR)  # xgrammar's warnings quote the constraint
        for descriptor in (0, 1, 2):  # a fork must not keep this process's socket open
            os.dup2(nowhere, descriptor)
        said, keep, words = "", True, None
        try:
            words = rewriting.in_other_words(kind, text)
            trial(*(words or (kind, text)), has_read)
        except rewriting.ERRORS as error:
            said = str(error)
        except TrialError as error:
            said, keep = str(error), error.keep
        except MemoryError:
            said = f"takes more than {MEMORY_BYTES >> 20} MiB"
        except Exception as error:
            said = f"cannot be read: {type(error).__name__}"
        verdict = {
            "error": said or None,
            "words": None if said else words,
            "mask_seconds": trial.mask_seconds,
            "keep": keep,
        }
        with open(writer, "wb") as whole:  # it may be more than a pipe holds
            whole.write(json.dumps(verdict).encode() + END)
    finally:
        os._exit(0)


class Running:
    def __init__(self, request: Json, pid: int, reader: int, idle: bool) -> None:
        self.request, self.pid, self.reader = request, pid, reader
        self.started = time.monotonic()
        self.written = b""
        self.in_time = True
        self.idle = False
        if idle:
            self.give_way()

    def give_way(self) -> None:
        """From now on it runs only while nothing else wants the CPU."""
        self.idle = True
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))

    def taken(self) -> float:
        """CPU seconds."""
        return time.clock_gettime(~self.pid << 3 | 2)  # its CPU clock, as in clock_getcpuclockid(3)

    def kill(self) -> None:
        self.in_time = False
        os.kill(self.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Reads what there is; whether it was the last. Call it once there is something to read."""
        more = os.read(self.reader, 65536)
        self.written += more
        return not more

    def verdict(self) -> Json:
        while not self.has_ended():
            pass
        os.close(self.reader)
        _, status, used = os.wait4(self.pid, 0)
        seconds = used.ru_utime + used.ru_stime
        whole = self.written.endswith(END)
        return {
            "id": self.request["id"],
            **(json.loads(self.written) if whole else died(seconds, os.WTERMSIG(status))),
            "in_time": whole or self.in_time,
            "seconds": seconds,
        }


def died(seconds: float, number: int) -> Json:
    """The verdict on a fork that died: of a crash, which would happen again; of the CPU limit,
    which goes further on a less busy machine; or killed on a machine short of memory."""
    said = f"could not be read and compiled: it ended after {seconds:.1f} s of CPU time; at most "
    said += f"{READING_SECONDS} s to read, {CPU_SECONDS} s and {MEMORY_BYTES >> 20} MiB are allowed"
    said += "; use fewer or smaller counts and lengths"
    return {
        "error": said,
        "words": None,
        "mask_seconds": 0.0,
        "keep": number != signal.SIGKILL,
        "keep_seconds": AGAIN_SECONDS if number == signal.SIGXCPU else None,
    }


def lines(descriptor: int) -> Iterator[list[bytes] | None]:
    """The whole lines, each time something can be read; None at the end."""
    rest = b""
    while more := os.read(descriptor, 1 << 20):
        *whole, rest = (rest + more).split(b"\n")
        yield whole
    yield None


class Trials:
    """At most two forks: one that has had less than its slice, and one that goes on after it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.waiting: list[Json] = []
        self.later: list[Json] = []  # had their slice while another went on
        self.fresh: Running | None = None
        self.slow: Running | None = None
        self.calm_at = 0.0

    def ask(self, requests: Iterable[Json]) -> None:
        """Queues requests. The newest goes first and the oldest is given up, so that a client with
        one constraint does not wait behind a client that sends heavy ones without a pause."""
        self.waiting += requests
        while len(self.waiting) > MOST_WAITING:
            answer({**NO_VERDICT, "id": self.waiting.pop(0)["id"]})

    def prepare(self, in_advance: Iterator[Json]) -> bool:
        """Compiles the next common schema; False if none is left."""
        with contextlib.suppress(Exception):  # another xgrammar: forks compile it themselves
            for schema in in_advance:
                self.trial.prepare(schema)
                return True
        return False

    def running(self) -> list[Running]:
        return [one for one in (self.fresh, self.slow) if one is not None]

    def start(self) -> None:
        if self.fresh is None and self.waiting:
            alone = len(self.waiting) == 1 and time.monotonic() > self.calm_at
            self.fresh = self._fork(self.waiting.pop(), idle=not alone)
        if self.slow is None and self.later:
            self.slow = self._fork(self.later.pop(0), idle=True)

    def _fork(self, request: Json, idle: bool) -> Running:
        return Running(request, *fork(self.trial, request["kind"], request["text"]), idle)

    def ended(self, one: Running) -> None:
        answer(one.verdict())
        if one is self.fresh:
            self.fresh = None
        else:
            self.slow = None

    def tick(self, now: float) -> None:
        for one in self.running():
            if now - one.started > WALL_SECONDS:
                one.kill()
        if self.fresh is None or self.fresh.taken() <= SLICE_SECONDS:
            return
        one, self.fresh = self.fresh, None
        self.calm_at = now + CALM_SECONDS
        if self.slow is None:
            one.give_way()
            self.slow = one
            return
        one.kill()
        said = one.verdict()
        if said["in_time"] or len(self.later) >= MOST_LATER:  # it had written its verdict
            answer(said)
        else:
            self.later.append(one.request)

    def end(self) -> None:
        for one in self.running():
            one.kill()


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # otherwise it ends seconds later
    import xgrammar  # noqa: F401  # takes seconds: done while vLLM starts, before the first message

    for number in (signal.SIGINT, signal.SIGTERM):  # it serves the server's drain, and ends with it
        signal.signal(number, signal.SIG_IGN)
    asked = lines(sys.stdin.fileno())
    first: list[bytes] = []
    while not first:
        if (came := next(asked)) is None:
            return
        first += came
    trials = Trials(Trial(json.loads(first.pop(0))))
    trials.ask(map(json.loads, first))
    in_advance = common.schemas()
    prepared = False
    gc.freeze()  # a fork copies each page that it writes to
    answer({"ready": True})
    while True:
        trials.start()
        running = trials.running()
        watched = [sys.stdin.fileno(), *(one.reader for one in running)]
        pause = 0.02 if running else None if prepared else 0.0
        ready = select.select(watched, [], [], pause)[0]
        if not ready and not running:
            prepared = not trials.prepare(in_advance)
        for one in running:
            if one.reader in ready and one.has_ended():
                trials.ended(one)
        trials.tick(time.monotonic())
        if sys.stdin.fileno() in ready:
            if (came := next(asked)) is None:
                trials.end()
                return
            trials.ask(map(json.loads, came))


def answer(said: Json) -> None:
    os.write(sys.stdout.fileno(), json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()

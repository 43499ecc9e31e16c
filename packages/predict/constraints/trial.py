"""Tries constraints on the output before vLLM sees them: `python -m predict.constraints.trial`.

Promises: each constraint is compiled and stepped over the model's real vocabulary in a fork of this
process, which may take `CPU_SECONDS` and `MEMORY_BYTES` and no more; whatever happens to the fork,
this process answers with a verdict. Refuses what xgrammar cannot read or crashes at, what takes
longer to read or compile, and what has a slow mask on one of the paths walked.

Talks in lines of JSON: first {"tokenizer": xgrammar's TokenizerInfo, "separators": …}, then
requests {"id", "kind", "text"}; answers {"id", "error": text or null, "mask_seconds": of the
slowest mask, "keep": whether another trial would say the same, "seconds": CPU, "in_time": false
where the machine was too busy for a verdict}.
"""

import contextlib
import gc
import json
import os
import random
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

CPU_SECONDS = 10  # of a fork; RLIMIT_CPU has whole seconds …
READING_SECONDS = 2  # … of them while it reads
WALL_SECONDS = 20.0  # after which a machine is too busy for a verdict
MEMORY_BYTES = 1 << 30  # beyond what this process has mapped
SLICE_SECONDS = 0.1  # CPU; who takes more makes room for those that have not had it
CALM_SECONDS = 2.0  # without such a one, after which a fork has the usual priority again
MOST_WAITING = 256  # constraints that wait for their slice; the newest is the next
MOST_LATER = 8  # constraints that wait for the rest of theirs

# What vLLM does again: in the API server's event loop, and in a thread of the engine.
READ_SECONDS = 0.02
COMPILE_SECONDS = 9.0
# Of one mask at most, and of a token in the mean: everybody's next token waits for one of them.
MASK_SECONDS = 0.1
MEAN_SECONDS = 0.08
WALK_SECONDS = 0.25  # of a path's masks, unless STEPS are less
CLEAR = 2  # times more than allowed is refused for good; less may be due to a busy machine
STEPS = 64

KINDS = {  # → methods of xgrammar's Grammar and GrammarCompiler
    "json_schema": ("from_json_schema", "compile_json_schema"),
    "regex": ("from_regex", "compile_regex"),
    "ebnf": ("from_ebnf", "compile_grammar"),
    "lark": ("from_lark", "compile_lark"),
    "structural_tag": ("from_structural_tag", "compile_structural_tag"),
}

PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")  # in xgrammar's source

Json = dict[str, Any]

NO_VERDICT: Json = {
    "error": None,
    "mask_seconds": 0.0,
    "keep": False,
    "in_time": False,
    "seconds": 0.0,
}


class TrialError(ValueError):
    """Why a constraint is refused, as the end of a sentence about it."""

    def __init__(self, said: str, keep: bool = True) -> None:
        super().__init__(said)
        self.keep = keep


class Trial:
    """What a fork does with a constraint."""

    def __init__(self, setup: Json) -> None:
        import xgrammar

        self.xgrammar = xgrammar
        info = xgrammar.TokenizerInfo.deserialize_json(setup["tokenizer"])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)  # its cache saves what one
        # grammar has twice, as in vLLM
        self.options: Json = {}
        if setup["separators"]:  # as vLLM does with disable_any_whitespace
            self.options = {"any_whitespace": False, "separators": tuple(setup["separators"])}
        self.mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self.bits = self.mask.numpy().view("uint8")
        tokens = info.decoded_vocab
        # Short tokens visit the most states on their way, and one repeated keeps open what may end.
        short = [number for number, token in enumerate(tokens) if len(token) == 1]
        self.short = self.mask.numpy().view("uint8") * 0
        for number in short:
            self.short[0][number // 8] |= 1 << number % 8
        self.mask_seconds = 0.0  # of the slowest
        self.walk(self.compiler.compile_regex("a*"), 0)  # what is slow only once
        self.mask_seconds = 0.0

    def __call__(self, kind: str, text: str, has_read: Callable[[], None]) -> None:
        read, compile_ = KINDS[kind]
        options = self.options if kind == "json_schema" else {}
        arguments: list[Any] = [text]
        if kind == "structural_tag" and "structures" in (tag := json.loads(text)):
            arguments = [self._items(tag), tag["triggers"]]  # an earlier form, which vLLM takes too
        else:
            self._within("read", READ_SECONDS, getattr(self.xgrammar.Grammar, read), text)
        has_read()
        grammar = self._within(
            "compile",
            COMPILE_SECONDS,
            lambda: getattr(self.compiler, compile_)(*arguments, **options),
        )
        for path in range(3):
            self.walk(grammar, path)

    def _items(self, tag: Json) -> Any:
        return [
            self.xgrammar.StructuralTagItem(
                begin=one["begin"], schema=json.dumps(one["schema"]), end=one["end"]
            )
            for one in tag["structures"]
        ]

    def _within(self, what: str, most: float, do: Callable[..., Any], *arguments: Any) -> Any:
        start = time.process_time()
        try:
            done = do(*arguments)
        except MemoryError:
            raise
        except Exception as error:
            raise TrialError(f"cannot be followed: {shortened(str(error))}") from None
        if (took := time.process_time() - start) > most:
            said = f"takes {took:.2f} s to {what}; at most {most:g} s are allowed"
            raise TrialError(said, keep=took > CLEAR * most)
        return done

    def walk(self, grammar: Any, path: int) -> None:
        """Steps along a path. 0: a short token again and again; 1: any short one; 2: any."""
        matcher = self.xgrammar.GrammarMatcher(grammar)
        chance = random.Random(path)
        token, walked = None, 0.0
        for step in range(1, STEPS + 1):
            start = time.process_time()
            matcher.fill_next_token_bitmask(self.mask)
            took = time.process_time() - start
            walked += took
            self.mask_seconds = max(self.mask_seconds, took)
            if took > MASK_SECONDS:
                raise slow(took, MASK_SECONDS)
            if walked > WALK_SECONDS:
                if walked > step * MEAN_SECONDS:
                    raise slow(walked / step, MEAN_SECONDS)
                return
            token = self._choose(path, token, chance)
            if token is None or not matcher.accept_token(token) or matcher.is_terminated():
                return

    def _choose(self, path: int, last: int | None, chance: random.Random) -> int | None:
        if path == 0 and last is not None and self._allowed(last):
            return last
        allowed = self.bits[0]
        if path < 2 and (short := allowed & self.short[0]).any():
            allowed = short
        places = allowed.nonzero()[0]
        if not len(places):
            return None
        place = int(places[0] if path == 0 else chance.choice(places))
        byte = int(allowed[place])
        bits = [bit for bit in range(8) if byte >> bit & 1]
        return place * 8 + (bits[0] if path == 0 else chance.choice(bits))

    def _allowed(self, token: int) -> bool:
        return bool(self.bits[0][token // 8] >> token % 8 & 1)


def slow(took: float, most: float) -> TrialError:
    return TrialError(
        f"takes the engine {took * 1000:.1f} ms for a token; at most {most * 1000:g} ms are "
        "allowed",
        keep=took > CLEAR * most,
    )


def shortened(text: str) -> str:
    line = PLACE.sub("", text.strip().splitlines()[-1] if text.strip() else "unreadable")
    return line if len(line) <= 150 else f"{line[:149]}…"


def fork(trial: Trial, kind: str, text: str) -> tuple[int, int]:
    """The process that tries it, and where it writes its verdict."""
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
        nowhere = os.open(os.devnull, os.O_WRONLY)  # xgrammar's warnings quote the constraint
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        said, keep = "", True
        try:
            trial(kind, text, has_read)
        except TrialError as error:
            said, keep = str(error), error.keep
        except MemoryError:
            said = f"takes more than {MEMORY_BYTES >> 20} MiB"
        except Exception as error:
            said = f"cannot be read: {type(error).__name__}"
        verdict = {"error": said or None, "keep": keep, "mask_seconds": trial.mask_seconds}
        os.write(writer, json.dumps(verdict).encode())
    finally:
        os._exit(0)


class Running:
    def __init__(self, request: Json, pid: int, reader: int, idle: bool) -> None:
        self.request, self.pid, self.reader = request, pid, reader
        self.started = time.monotonic()
        self.in_time = True
        self.idle = False
        if idle:
            self.give_way()

    def give_way(self) -> None:
        """From now on it runs while nothing else wants the CPU."""
        self.idle = True
        with contextlib.suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))

    def taken(self) -> float:
        """CPU seconds."""
        return time.clock_gettime(~self.pid << 3 | 2)  # its CPU clock, as in clock_getcpuclockid(3)

    def kill(self) -> None:
        self.in_time = False
        os.kill(self.pid, signal.SIGKILL)

    def verdict(self) -> Json:
        written = os.read(self.reader, 65536)
        os.close(self.reader)
        _, status, used = os.wait4(self.pid, 0)
        seconds = used.ru_utime + used.ru_stime
        return {
            "id": self.request["id"],
            **(json.loads(written) if written else died(seconds, os.WTERMSIG(status))),
            "in_time": bool(written) or self.in_time,
            "seconds": seconds,
        }


def died(seconds: float, number: int) -> Json:
    """The verdict on what a fork did not survive: a limit of CPU time and a crash, which it would
    not the next time either, or a machine without memory, which kills."""
    said = f"could not be read and compiled: it ended after {seconds:.1f} s of CPU time; at most "
    said += f"{READING_SECONDS} s to read, {CPU_SECONDS} s and {MEMORY_BYTES >> 20} MiB are allowed"
    return {"error": said, "keep": number != signal.SIGKILL, "mask_seconds": 0.0}


def lines(descriptor: int) -> Iterator[list[bytes] | None]:
    """Each time something can be read, the whole lines of it; None at the end."""
    rest = b""
    while more := os.read(descriptor, 1 << 20):
        *whole, rest = (rest + more).split(b"\n")
        yield whole
    yield None


class Trials:
    """Two forks at most: one that has had less than its slice, one that goes on after it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.waiting: list[Json] = []
        self.later: list[Json] = []  # they had their slice while another went on
        self.fresh: Running | None = None
        self.slow: Running | None = None
        self.calm_at = 0.0

    def ask(self, requests: Iterable[Json]) -> None:
        """The newest goes first, and the oldest is given up: who comes once does not wait behind
        whoever sends heavy ones without a pause."""
        self.waiting += requests
        while len(self.waiting) > MOST_WAITING:
            answer({**NO_VERDICT, "id": self.waiting.pop(0)["id"]})

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
        if len(self.later) < MOST_LATER:
            one.verdict()
            self.later.append(one.request)
        else:
            answer(one.verdict())

    def end(self) -> None:
        for one in self.running():
            one.kill()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the server, whose drain it serves
        signal.signal(number, signal.SIG_IGN)
    asked = lines(sys.stdin.fileno())
    first: list[bytes] = []
    while not first:
        if (came := next(asked)) is None:
            return
        first += came
    trials = Trials(Trial(json.loads(first.pop(0))))
    trials.ask(map(json.loads, first))
    gc.freeze()  # a fork copies each page that it writes to
    answer({"ready": True})
    while True:
        trials.start()
        running = trials.running()
        watched = [sys.stdin.fileno(), *(one.reader for one in running)]
        ready = select.select(watched, [], [], 0.02 if running else None)[0]
        for one in running:
            if one.reader in ready:
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

"""A plugin of vLLM's engine (`vllm.general_plugins`): ends a request whose masks take more than
their share of time, and no other.

Between two tokens, vLLM's scheduler asks xgrammar which tokens each constrained request may have
next, one request after another. A mask that takes ten seconds holds all requests up for ten
seconds.

Promises: masks are made in a thread that is left behind, at the lowest priority, when a request has
used up its allowance. The request's next token is then refused, which ends it with an error (vLLM's
own mechanism). A constraint that was slow beyond `SHARE_SECONDS` is refused from then on, before it
is compiled. Compiling runs at a low priority.
A mask's allowance is the time expected of it: from trial.py, or from an earlier mask of the same
constraint. Time beyond that comes from a budget: a request may take `BURST_SECONDS` of it, and all
of them together `SPARE_FRACTION` of the time. After `STEP_SECONDS` of a step, an answer ends if its
constraint was already slow in that step.
"""

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

from predict.constraints.recent import Recent
from predict.constraints.turns import QUICK_SECONDS, foreseen, key_of, turns

LEAST_SECONDS = 0.005  # CPU time each mask may take: a hundred times an ordinary one's, or …
EXPECTED_TIMES = 1.5  # … so many times the slowest that was seen
SHARE_SECONDS = 0.08  # of that, at most, unless trial.py has seen more
BURST_SECONDS = 0.15  # per request, beyond what was expected
SPARE_FRACTION = 0.1  # of all time may go into bursts …
SPARE_SECONDS = 0.3  # … and so much can be saved up
STEP_SECONDS = 0.3  # of masks in a step; beyond it, requests end whose constraint was slow in it
SLOW_SECONDS = 0.004
MOST_LEFT = 4  # threads left behind at once; with so many there are no bursts …
CROWDED = 8  # … and with so many, no constraint begins that has not run before
MOST_KNOWN = 1000  # constraints that are remembered
LOOK_SECONDS = 0.005
COMPILING, LEFT_BEHIND = 10, 19  # niceness


class LeftBehindError(BaseException):
    """Ends a thread whose results nobody waits for."""


class Spare:
    """The seconds available for bursts."""

    def __init__(self) -> None:
        self.seconds, self.at = SPARE_SECONDS, time.monotonic()

    def left(self) -> float:
        now = time.monotonic()
        self.seconds = min(SPARE_SECONDS, self.seconds + (now - self.at) * SPARE_FRACTION)
        self.at = now
        return max(0.0, self.seconds)


class Step:
    """The masks of one step of the engine, with those that are made again."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slow: set[Any] = set()  # constraints that had a slow mask
        self.bitmask: Any = None  # with the rows made so far, …
        self.made: set[tuple[int, int]] = set()  # … by grammar id and index
        self.before: Any = None  # a bitmask that the thread left behind may still write to …
        self.kept: set[tuple[int, int]] = set()  # … and its valid rows

    def again(self) -> None:
        self.before, self.kept, self.made = self.bitmask, self.made, set()


class Maker:
    """A thread that makes the masks of a step, and can be left behind."""

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.left = False
        self.grammar: Any = None  # whose mask is being made, since the thread's CPU clock said …
        self.since = 0.0
        self.step = Step()
        self.thread = threading.Thread(target=self._run, daemon=True, name="masks")
        self.thread.start()

    def _run(self) -> None:
        local.maker = self
        while not self.left and (task := self.tasks.get()) is not None:
            try:
                task()
            except LeftBehindError:
                return

    def taken(self) -> float:
        """CPU seconds that the current mask has taken so far."""
        if self.thread.ident is None:
            return 0.0
        clock = time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident))
        return clock - self.since

    def fill(self, original: Callable[..., None], grammar: Any, bitmask: Any, index: int) -> None:
        row = (id(grammar), index)
        with self.lock:
            if self.left:
                raise LeftBehindError
            step, key = self.step, key_of(grammar)
            step.bitmask = bitmask
            if row in step.kept:
                bitmask[index].copy_(step.before[index])
                step.made.add(row)
                return
            if step.seconds > STEP_SECONDS and key in step.slow:
                grammar.predict_over = True  # but not its constraint, which may go on one at a time
            if is_over(grammar):
                bitmask[index].fill_(-1)
                return
            self.since = time.thread_time()
            self.grammar = grammar
        try:
            original(grammar, bitmask, index)
        finally:
            with self.lock:
                if self.left:
                    raise LeftBehindError
                self.grammar = None
                seconds = time.thread_time() - self.since
                step.seconds += seconds
                step.made.add(row)
                if seconds > SLOW_SECONDS:
                    step.slow.add(key)
                if seconds > QUICK_SECONDS or not getattr(grammar, "predict_quick", False):
                    charge(grammar, seconds)

    def abandon(self) -> bool:
        """Leaves the thread behind if its current mask takes too long → whether it did."""
        with self.lock:
            grammar, taken = self.grammar, self.taken()
            if grammar is None or taken <= allowance(grammar):
                return False
            self.step.seconds += taken
            charge(grammar, taken)
            end(grammar, for_good=taken > SHARE_SECONDS)
            self.left = True
            left_behind.append(self.thread)
            lower(self.thread.native_id, LEFT_BEHIND)  # it still lives: it needs the lock to end
        return True


local = threading.local()
spare = Spare()
left_behind: list[threading.Thread] = []
ended: Recent[None] = Recent(MOST_KNOWN)  # constraints that took too long, by hash
slowest: Recent[float] = Recent(MOST_KNOWN)  # seconds of a constraint's slowest mask, by hash


def lower(thread: int | None, niceness: int) -> None:
    """Lowers a thread's priority, unless the container forbids it."""
    if thread is not None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def is_over(grammar: Any) -> bool:
    return bool(getattr(grammar, "predict_over", False))


def end(grammar: Any, for_good: bool) -> None:
    """Ends a request; `for_good`: its constraint is refused from then on."""
    grammar.predict_over = True
    if for_good and (key := key_of(grammar)) is not None:
        ended[key] = None


def expected(grammar: Any) -> float:
    """CPU seconds that the request's next mask may take in any case."""
    tried = EXPECTED_TIMES * float(getattr(grammar, "predict_foreseen", 0.0))
    key = key_of(grammar)
    seen = EXPECTED_TIMES * slowest.get(key, 0.0) if key is not None else 0.0
    return max(LEAST_SECONDS, tried, min(SHARE_SECONDS, seen))


def still_left() -> int:
    """The number of threads left behind that have not ended yet."""
    left_behind[:] = [thread for thread in left_behind if thread.is_alive()]
    return len(left_behind)


def allowance(grammar: Any) -> float:
    """CPU seconds that the request's next mask may take now."""
    if still_left() >= MOST_LEFT:
        return expected(grammar)
    burst = BURST_SECONDS - getattr(grammar, "predict_beyond", 0.0)
    return expected(grammar) + max(0.0, min(burst, spare.left()))


def charge(grammar: Any, seconds: float) -> None:
    turns.safely(turns.record, grammar, seconds)
    beyond = seconds - expected(grammar)
    grammar.predict_beyond = max(0.0, getattr(grammar, "predict_beyond", 0.0) + beyond)
    if beyond > 0:
        spare.seconds = spare.left() - beyond
        if (key := key_of(grammar)) is not None:
            slowest[key] = max(seconds, slowest.get(key, 0.0))
    if grammar.predict_beyond > BURST_SECONDS:
        end(grammar, for_good=True)
    # As for almost every request: if its next mask is quick too, nothing of it is recorded.
    cost = getattr(grammar, "predict_cost", 0.0)
    grammar.predict_quick = cost <= QUICK_SECONDS and not grammar.predict_beyond


class Guard:
    """vLLM's `grammar_bitmask`, run in a Maker."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original
        self.maker: Maker | None = None

    def __call__(self, manager: Any, requests: Any, ids: Any, drafts: Any) -> Any:
        if not ids:
            return None
        # For many requests vLLM uses its own threads, which could not be left behind.
        manager.fill_bitmask_parallel_threshold = 1 << 30
        step = Step()
        while True:
            maker = self.maker = self.maker or Maker()
            done = threading.Event()
            found: list[Any] = []

            def make(found: list[Any] = found, done: threading.Event = done) -> None:
                try:
                    found.append(self.original(manager, requests, ids, drafts))
                except Exception as error:
                    found.append(error)
                done.set()

            maker.step = step
            maker.tasks.put(make)
            while not done.wait(LOOK_SECONDS):
                if maker.abandon():
                    self.maker = None
                    step.again()
                    manager._grammar_bitmask = None  # the thread left behind may write to the old
                    break
            else:
                if isinstance(found[0], Exception):
                    raise found[0]
                return found[0]


def register() -> None:
    """The plugin's entry point, which vLLM calls in each of its processes."""
    fill, accept = XgrammarGrammar.fill_bitmask, XgrammarGrammar.accept_tokens
    create = StructuredOutputManager._create_grammar
    if hasattr(fill, "__wrapped__"):  # this may be called again
        return

    @functools.wraps(fill)
    def fill_bitmask(self: Any, bitmask: Any, index: int) -> None:
        maker = getattr(local, "maker", None)
        if maker is None:
            fill(self, bitmask, index)
        else:
            maker.fill(fill, self, bitmask, index)

    @functools.wraps(accept)
    def accept_tokens(self: Any, request_id: str, tokens: list[int]) -> bool:
        return False if is_over(self) else accept(self, request_id, tokens)

    @functools.wraps(create)
    def create_grammar(self: Any, request: Any) -> Any:
        key = hash(request.structured_output_request.structured_output_key)
        if key in ended:
            raise ValueError("a constraint that took too long before")
        if threading.current_thread() is not threading.main_thread():
            lower(threading.get_native_id(), COMPILING)
        grammar = create(self, request)
        grammar.predict_key = key
        grammar.predict_foreseen = foreseen(request)
        return grammar

    XgrammarGrammar.fill_bitmask = fill_bitmask
    XgrammarGrammar.accept_tokens = accept_tokens
    StructuredOutputManager._create_grammar = create_grammar
    turns.is_crowded = lambda: still_left() >= CROWDED
    guard = Guard(StructuredOutputManager.grammar_bitmask)
    StructuredOutputManager.grammar_bitmask = lambda self, *arguments: guard(self, *arguments)

"""Whether this machine has idle time, for tests of code that runs only then: trials of constraints
have idle priority after their first 0.1 s, and without a verdict after 20 s the request gets a 503
(predict/constraints/process.py)."""

import os
import time
from multiprocessing import get_context
from typing import Any

SECONDS = 1.0
LEAST = 0.5  # of a core: a trial of 4 CPU seconds then has its verdict within 8 s


def idle_share() -> float:
    """The share of a core that a process at idle priority gets now."""
    processes = get_context("fork")
    answers: Any = processes.SimpleQueue()
    process = processes.Process(target=_spin, args=(answers,))
    process.start()
    process.join()
    return float(answers.get())


def is_busy() -> bool:
    return idle_share() < LEAST


def _spin(answers: Any) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() - began < SECONDS:
        pass
    answers.put((time.process_time() - used) / (time.monotonic() - began))

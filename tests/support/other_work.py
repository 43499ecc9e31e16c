"""Whether other work occupied this machine's cores: only then is a slow measurement repeated, so
that a rare delay caused by this project fails its test."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.cpu import TICKS, cpu_seconds, family

TRIES = 3
NOTICED = 0.02  # of the cores' time; an idle machine uses a tenth of it for itself
LEAST_SECONDS = 0.1  # of CPU, if that share is small: both are counted in ticks of 10 ms
Found = TypeVar("Found")


def busy_seconds() -> float:
    """CPU seconds of everything on the cores available to us, including the kernel and other guests
    of the machine."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in cores:
            user, nice, system, _, _, interrupts, soft, stolen, *_ = map(int, times)
            ticks += user + nice + system + interrupts + soft + stolen
    return ticks / TICKS


def own_seconds() -> float:
    """CPU seconds of this process and all that it has started, including those that have ended."""
    return cpu_seconds(family(os.getpid()))


def tried_again(
    measure: Callable[[], Found], is_well: Callable[[Found], bool], tries: int = TRIES
) -> Found:
    """The result of `measure`: the first that is well, or that came while nothing else used the
    cores, or the last."""
    while True:
        began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
        found = measure()
        others = (busy_seconds() - busy) - (own_seconds() - own)
        share = others / (len(os.sched_getaffinity(0)) * (time.monotonic() - began))
        tries -= 1
        if is_well(found) or not tries:
            return found
        if share < NOTICED or others < LEAST_SECONDS:
            print(f"not tried again: other work had {share:.1%} of the cores' time")
            return found

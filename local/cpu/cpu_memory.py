"""Lets vLLM's CPU build keep the memory of a step for the next one; a vLLM plugin that only the
local container loads.

MALLOC_MMAP_THRESHOLD_ (deploy/variables.py) has each block of 128 KiB and more fetched from the
system and given back. On a CPU the logits are such blocks, several times in each step: for 8 rows
and a vocabulary of 131,072 that made 134,000 page faults a second, a third of the engine's CPU
time. On a GPU only images are.
"""

import ctypes
import functools
from typing import Any

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt(3)
LARGE = 32 << 20  # bytes; glibc's own threshold rises no further
KEPT = 64 << 20  # bytes, free at the end of the heap: more than a step takes


def register() -> None:
    from vllm.v1.worker.cpu_worker import CPUWorker

    worker: Any = CPUWorker
    init_device = worker.init_device

    @functools.wraps(init_device)
    def init_and_keep(self: Any) -> None:
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, LARGE)
        library.mallopt(TRIM_THRESHOLD, KEPT)
        init_device(self)

    worker.init_device = init_and_keep

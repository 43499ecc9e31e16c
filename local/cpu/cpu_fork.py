"""Makes vLLM fork its engine and workers if VLLM_WORKER_MULTIPROC_METHOD says so; a vLLM plugin
that only the local container loads.

vLLM's CPU platform always sets it to `spawn`. A fork keeps its parent's imports and the work of
plugins there, but not its threads, so OpenMP may use only one (local/environment.yaml).
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
from typing import Any

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt(3)
# Bytes. The float32 logits of 80 answers from 131,072 tokens are 40 MiB. With 192 MiB, room for
# those of 320 answers, the heap had gaps of all sizes: 5 GB more after ten minutes.
LARGE = 64 << 20
KEPT = 128 << 20  # free at the end of the heap


def register() -> None:
    if os.environ.get(METHOD) != "fork" or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    from vllm.platforms.cpu import CpuPlatform

    platform: Any = CpuPlatform
    check = platform.check_and_update_config

    def check_and_update_config(vllm_config: Any) -> None:
        check(vllm_config)
        os.environ[METHOD] = "fork"
        logging.getLogger("vllm.cpu_fork").info("engine and workers are forked")

    platform.check_and_update_config = staticmethod(check_and_update_config)
    os.register_at_fork(after_in_child=begin_anew)


def begin_anew() -> None:
    """Detaches the child from the parent. Signals to the child must not reach the parent's
    event loop. A port must close with the parent, even if the child lives on. Garbage collection
    can ignore the parent's objects, which stay."""
    keep_memory()
    signal.set_wakeup_fd(-1)
    for name in os.listdir("/proc/self/fd"):
        if has_port(int(name)):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, int(name))  # the number's owner may close it
            os.close(nothing)
    gc.freeze()


def keep_memory() -> None:
    """Keeps the memory of one step of the engine for the next. With MALLOC_MMAP_THRESHOLD_, which
    models with images have (deploy/variables.py), each block of 128 KiB and more comes from the
    system and goes back to it; without it, each of more than 32 MiB. On a CPU the logits are such
    blocks, several times in each step: 8 rows of 131,072 tokens made 134,000 page faults a second,
    a third of the engine's CPU time, and 80 rows (40 MiB) take 28 ms to copy, not 5."""
    library = ctypes.CDLL(None)
    library.mallopt(MMAP_THRESHOLD, LARGE)
    library.mallopt(TRIM_THRESHOLD, KEPT)


def has_port(descriptor: int) -> bool:
    """Whether it is a socket that listens on a port, or will: vLLM forks before it listens."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        if found.family == socket.AF_UNIX or found.type != socket.SOCK_STREAM:
            return False
        with contextlib.suppress(OSError):
            found.getpeername()  # fails unless it is a connection
            return False
        return bool(found.getsockname()[1])
    finally:
        found.detach()

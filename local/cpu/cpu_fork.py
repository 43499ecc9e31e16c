"""Has vLLM fork its engine and workers where VLLM_WORKER_MULTIPROC_METHOD says so; loaded as a
plugin of vLLM by the local container alone.

vLLM's CPU platform sets it to `spawn` whatever it was. A fork has what its parent imported, and
what plugins did there; threads it would lose, so OpenMP may have one only (local/environment.yaml).
"""

import contextlib
import gc
import logging
import os
import signal
import socket
from typing import Any

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


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
    """Where the parent's event loop hears of signals, a child's would be taken for the parent's.
    A port is closed with the parent, though the child lives on. What the parent made stays: no
    collection of garbage needs to look through it."""
    signal.set_wakeup_fd(-1)
    for name in os.listdir("/proc/self/fd"):
        if has_port(int(name)):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, int(name))  # whoever has the number may close it
            os.close(nothing)
    gc.freeze()


def has_port(descriptor: int) -> bool:
    """Whether it is a socket that takes connections to a port, or will: vLLM forks before that."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        if found.family == socket.AF_UNIX or found.type != socket.SOCK_STREAM:
            return False
        with contextlib.suppress(OSError):
            found.getpeername()  # has none, unless it is a connection
            return False
        return bool(found.getsockname()[1])
    finally:
        found.detach()

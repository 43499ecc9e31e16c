"""Has vLLM fork its engine and workers where VLLM_WORKER_MULTIPROC_METHOD says so; loaded as a
plugin of vLLM by the local container alone.

vLLM's CPU platform sets it to `spawn` whatever it was. A fork has what its parent imported, and
what plugins did there. No thread of torch is there to be lost: OpenMP has one of them
(local/environment.yaml).
"""

import gc
import os
import signal
from typing import Any

METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def register() -> None:
    if os.environ.get(METHOD) != "fork":
        return
    from vllm.platforms.cpu import CpuPlatform

    platform: Any = CpuPlatform
    check = platform.check_and_update_config

    def check_and_update_config(vllm_config: Any) -> None:
        check(vllm_config)
        os.environ[METHOD] = "fork"

    platform.check_and_update_config = staticmethod(check_and_update_config)
    os.register_at_fork(after_in_child=begin_anew)


def begin_anew() -> None:
    """Where the parent's event loop hears of signals, a child's would be taken for the parent's.
    What the parent made stays: no collection of garbage needs to look through it."""
    signal.set_wakeup_fd(-1)
    gc.freeze()

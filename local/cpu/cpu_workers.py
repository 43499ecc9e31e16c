"""Makes the engine and its tensor-parallel workers sleep while they wait for each other; a vLLM
plugin that only the local container loads.

vLLM's processes call `sched_yield` between polls of their shared memory, for a second after each
message. That keeps all cores busy, and Linux 6.18 then left other processes, such as clients, 1 to
6 % of a core. A shorter second loses wake-ups. Figures: docs/upstream.md, "A stream comes as one
lump".
"""

import time
from typing import Any

LOOK_SECONDS = 1e-4  # between polls; a step of a stand-in takes 3,000 to 5,000 µs


def register() -> None:
    from vllm.distributed.device_communicators import shm_broadcast

    queues: Any = shm_broadcast
    assert callable(queues.sched_yield), "vLLM's queues no longer wait by this name"
    queues.sched_yield = look_later


def look_later() -> None:
    time.sleep(LOOK_SECONDS)

"""What Python runs first in each of vLLM's processes: the interpreter imports this by itself.

As PID 1 (if Truss has built the image without supervisord), a process ignores a SIGTERM that it
does not handle, and vLLM handles it only once it has been imported; until then this module does. It
ends the process at once: there is nothing to shut down yet, and an exception could get lost in what
is imported.

Python's garbage collector rests while vLLM starts, and rarely makes a full collection afterwards.

vLLM's imports make objects that stay, and the collector looks through them again and again in each
of vLLM's processes. vLLM itself makes a full collection at the end of its start and then sets aside
what is left (its `freeze_gc_heap`). That first full collection brings the usual thresholds back,
except for full ones, which come a tenth as often: with 340 requests, each took the API server 90 ms
in which no request was answered, every 8 s, and found next to nothing (356 objects in 40 s).
"""

import gc
import os
import signal
from typing import Any

*_YOUNG, _FULL = gc.get_threshold()
_SERVING = (*_YOUNG, 10 * _FULL)
_STARTING = (100_000, 100, 100)  # no full collection is then due before vLLM asks for one


def _serve(phase: str, collection: dict[str, Any]) -> None:
    if phase == "stop" and collection["generation"] == 2:
        gc.set_threshold(*_SERVING)
        gc.callbacks.remove(_serve)


if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
gc.set_threshold(*_STARTING)
gc.callbacks.append(_serve)

"""Lets Python's garbage collector rest while vLLM starts; imported as the interpreter starts.

The imports of vLLM make objects that stay, and the collector looks through them again and again in
each of vLLM's processes. vLLM itself collects fully at the end of its start and then sets aside
what is left (its `freeze_gc_heap`); with the first full collection the usual thresholds are back.
"""

import gc
from typing import Any

_USUAL = gc.get_threshold()
_RARELY = (100_000, 100, 100)  # a full collection is then never due before one is asked for


def _back_to_usual(phase: str, collection: dict[str, Any]) -> None:
    if phase == "stop" and collection["generation"] == 2:
        gc.set_threshold(*_USUAL)
        gc.callbacks.remove(_back_to_usual)


gc.set_threshold(*_RARELY)
gc.callbacks.append(_back_to_usual)

"""What vLLM calls in each of its processes (`vllm.general_plugins`), before it reads a model.

Promises: images come through images/connector.py and take the turns of images/turns.py; masks are
made under constraints/masks.py and in the turns of constraints/turns.py; long prompts are computed
in those of prefill_turns.py; the access log has the address of the connection, not one from a
client's X-Forwarded-For. In the API server, the process that tries constraints starts, and
accepting.py accepts connections. An error here stops vLLM from starting.
"""

import multiprocessing
import os
import sys

from predict import prefill_turns
from predict.constraints import child, masks, turns
from predict.images import connector
from predict.images import turns as image_turns


def register() -> None:
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "none")  # uvicorn's; it would trust nginx's header
    if is_server():
        from predict import accepting  # imports uvicorn, which the engine does without

        accepting.install()  # now: uvicorn makes the Gateway inside what this changes
        child.start_early()
    connector.register()
    masks.register()
    turns.register()
    image_turns.register()
    prefill_turns.register()


def is_server() -> bool:
    """Whether this is the process of `vllm serve` itself, not one of those that it starts."""
    return sys.argv[1:2] == ["serve"] and multiprocessing.parent_process() is None

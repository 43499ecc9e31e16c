"""What vLLM calls in each of its processes (`vllm.general_plugins`), before it reads a model.

Promises: images come through images/connector.py and take the turns of images/turns.py, masks are
made under constraints/masks.py and in the turns of constraints/turns.py, long prompts are computed
as prefill_turns.py has it, the process that tries constraints starts, and the access log has the
address of the connection, not one from a client's X-Forwarded-For. An error here stops vLLM from
starting.
"""

import os

from predict import accepting, prefill_turns
from predict.constraints import child, masks, turns
from predict.images import connector
from predict.images import turns as image_turns


def register() -> None:
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "none")  # of uvicorn's; it believes nginx's peers
    accepting.install()
    child.start_early()
    connector.register()
    masks.register()
    turns.register()
    image_turns.register()
    prefill_turns.register()

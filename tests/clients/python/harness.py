"""What every client is asked, and how what came is reported: a line of JSON a step.

A program here runs with a client's own packages alone. BASE_URL, MODEL and the question's answers
come from the environment (scripts/clients.py).
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

URL = os.environ["BASE_URL"]
MODEL = os.environ["MODEL"]
IMAGE = os.environ.get("IMAGE", "")  # a data URL, for models that take images
WIND = "What is the Mistral wind?"
WEATHER = "What is the weather in Genoa?"
DESCRIPTION = "The weather in a city."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RESULT = "14 degrees, mistral"
COLOUR = "What colour is this image?"


def run(**steps: Callable[[], Any]) -> None:
    """Each step returns what came, and raises what it is that did not."""
    for name, step in steps.items():
        if name.startswith("image") and not IMAGE:
            continue
        started = time.monotonic()
        try:
            said = {"came": str(step())[:300]}
        except Exception as error:
            said = {"failed": f"{type(error).__name__}: {error}"[:300]}
        seconds = round(time.monotonic() - started, 1)
        print(json.dumps({"step": name, "seconds": seconds, **said}), flush=True)

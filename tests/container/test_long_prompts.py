"""The cost of long prompts to a neighbour with a short one, and to each other (one text model)."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import turns
from tests.support.container import Running
from tests.support.neighbours import CHAT, http, neighbour
from tests.support.resilience import Report

SENTENCES = 1000  # of 6 tokens; three steps of the engine
CLIENTS = 8
ASKED = 5  # short prompts of each kind
LATELY_SECONDS = 10  # how long a short prompt spares later ones the wait

pytestmark = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)


SCHEMA = {"type": "object", "properties": {"wind": {"type": "string"}}, "required": ["wind"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "wind", "schema": SCHEMA}}


def seconds(mark: str, sentences: int, **fields: Any) -> float:
    """Until the one token of the answer to a prompt that shares nothing with others."""
    text = mark + "The mistral blows. " * sentences
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, **fields}
    with http() as client:
        began = time.monotonic()
        response = client.post(CHAT, json=body)
        took = time.monotonic() - began
    assert response.status_code == 200
    assert response.json()["usage"]["prompt_tokens"] > 5 * sentences
    return took


@pytest.mark.undisturbed
def test_a_short_prompt_does_not_wait_for_long_ones(container: Running, resilience: Report) -> None:
    """The long ones run one after the other, not all at once."""
    neighbour(1)
    seconds("first", 1, response_format=FORMAT)  # the schema is tried before it is accepted
    alone = seconds("alone", SENTENCES)
    with turns.given_up():  # nothing is measured meanwhile
        time.sleep(LATELY_SECONDS)  # the first short prompt among the long ones has a schema
    with ThreadPoolExecutor(CLIENTS) as clients:
        began = time.monotonic()
        asked = [clients.submit(seconds, f"long {n}", SENTENCES) for n in range(CLIENTS)]
        time.sleep(alone / 2)
        constrained = [
            seconds(f"schema {number}", 1, response_format=FORMAT) for number in range(ASKED)
        ]
        waited = [seconds(f"short {number}", 1) for number in range(ASKED)]
        still = sum(not one.done() for one in asked)
        longs = sorted(one.result() for one in asked)
        whole = time.monotonic() - began
    print(f"one long prompt {alone:.2f} s, {CLIENTS}: {longs}; short ones: {waited}")
    print(f"short ones with a schema: {constrained}")
    assert still >= CLIENTS // 2  # so every short prompt ran alongside them
    assert statistics.median(waited) < alone / 2
    assert statistics.median(constrained) < alone / 2
    assert longs[0] < whole / 2
    resilience.row(
        "Other waits",
        f"{CLIENTS} prompts of more than {5 * SENTENCES:,} tokens at once",
        f"a short one waits {statistics.median(waited):.2f} s in the median, {max(waited):.2f} s "
        f"at most; one long prompt alone takes {alone:.2f} s, of the {CLIENTS} the first "
        f"{longs[0]:.2f} s and the last {longs[-1]:.2f} s",
    )

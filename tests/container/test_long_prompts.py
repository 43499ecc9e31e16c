"""What long prompts cost a neighbour with a short one, and themselves (one text model)."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.container import Running
from tests.support.neighbours import CHAT, first_token_seconds, http, neighbour

TOKENS = 5_000
CLIENTS = 8
ASKED = 8  # times
UNDER_WAY_SECONDS = 0.5

pytestmark = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)


def long_seconds(mark: str) -> float:
    """Until the first token of a prompt of TOKENS that has nothing in common with others."""
    text = mark + "The mistral blows. " * (TOKENS // 5)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
    began = time.monotonic()
    with http() as client:
        response = client.post(CHAT, json=body)
    assert response.status_code == 200
    assert response.json()["usage"]["prompt_tokens"] > TOKENS
    return time.monotonic() - began


@pytest.mark.undisturbed
def test_a_short_prompt_does_not_wait_for_long_ones(container: Running) -> None:
    """Nor do long ones wait for each other longer than in order."""
    neighbour(1)
    alone = long_seconds("alone")
    with ThreadPoolExecutor(CLIENTS) as clients, http() as client:
        began = time.monotonic()
        asked = [clients.submit(long_seconds, f"long {number}") for number in range(CLIENTS)]
        time.sleep(UNDER_WAY_SECONDS)
        waited = [first_token_seconds(client) for _ in range(ASKED)]
        still = [one for one in asked if not one.done()]
        longs = sorted(one.result() for one in asked)
        whole = time.monotonic() - began
    print(f"one long prompt {alone:.2f} s, {CLIENTS}: {longs}; short ones: {waited}")
    assert len(still) >= CLIENTS // 2  # most of the neighbour's answers were beside them
    assert statistics.median(waited) < alone / 4
    assert max(waited) < alone
    assert longs[0] < whole / 3  # in order, not all at the end

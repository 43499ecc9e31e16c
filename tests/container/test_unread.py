"""Streams that nobody reads wait in the buffers between the engine and their clients."""

import pytest

from deploy.config import most_requests
from tests.support import faults, load
from tests.support.container import Running
from tests.support.resilience import Report

MODEL = "pixtral-12b"
COUNT = 200
TOKENS = 150  # of some 2 KB each; the clients' own buffers take 4 KB

pytestmark = [
    pytest.mark.parametrize("container", [MODEL], indirect=True),
    pytest.mark.only_resilience,  # takes minutes
]


def test_unread_streams_delay_nobody_and_leave_nothing(
    container: Running, resilience: Report
) -> None:
    before = load.memory()
    with faults.unread_streams(MODEL, COUNT, TOKENS) as unsent:
        held = load.memory() - before
        outcomes = load.streams(MODEL, 32)
        liveness = load.status(load.LIVENESS)
    assert len(unsent) == COUNT
    assert [outcome for outcome in outcomes if not outcome.right] == []
    assert liveness == 200
    most = most_requests(load.plan_of(MODEL))
    assert {outcome.status for outcome in load.streams(MODEL, most)} == {200}  # all slots
    after = load.memory() / before - 1
    print(held / 1e6, after)
    assert after < 0.1
    resilience.row(
        "A client that leaves",
        f"{COUNT} streams that nobody reads; then they hang up",
        f"{sum(unsent) / 1e6:.0f} MB wait to be sent; meanwhile {len(outcomes)} of {len(outcomes)} "
        f"other streams are answered right and liveness is {liveness}; afterwards all {most} "
        f"slots are free, memory {after:+.1%}",
    )

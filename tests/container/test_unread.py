"""Unread streams wait in the buffers between the engine and their clients."""

import pytest

from deploy.config import most_requests
from tests.support import faults, load
from tests.support.container import Running
from tests.support.resilience import Report

MODEL = "pixtral-12b"
COUNT = 200
GROWTH = 0.05  # of memory, in the second round
TOKENS = 150  # of some 2 KB each; the clients' own buffers hold 4 KB

pytestmark = [
    pytest.mark.parametrize("container", [MODEL], indirect=True),
    pytest.mark.only_resilience,  # takes minutes
]


def test_unread_streams_delay_nobody_and_leave_nothing(
    container: Running, resilience: Report
) -> None:
    """After the first round Python keeps memory for that many streams; the second adds little.
    The engine, which has finished them, is excluded: it touches the pages of its KV cache one after
    another until it has touched all, for any requests."""
    most = most_requests(load.plan_of(MODEL))
    grown = []
    for _ in range(2):
        before = load.memory(engine=False)
        with faults.unread_streams(MODEL, COUNT, TOKENS) as unsent:
            outcomes = load.streams(MODEL, 32)
            liveness = load.status(load.LIVENESS)
        assert len(unsent) == COUNT
        assert [outcome for outcome in outcomes if not outcome.right] == []
        assert liveness == 200
        assert {outcome.status for outcome in load.streams(MODEL, most)} == {200}  # all slots
        grown.append(load.memory(engine=False) / before - 1)
    print(grown)
    assert grown[1] < GROWTH
    resilience.row(
        "A client that leaves",
        f"{COUNT} streams that nobody reads, twice; then they hang up",
        f"{sum(unsent) / 1e6:.0f} MB wait to be sent; meanwhile {len(outcomes)} of {len(outcomes)} "
        f"other streams are answered right and liveness is {liveness}; afterwards all {most} "
        f"slots are free, memory beside the engine's {grown[0]:+.1%} the first time, "
        f"{grown[1]:+.1%} the second",
    )

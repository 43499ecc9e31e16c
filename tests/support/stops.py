"""The rules for a stop of the container, in both of Truss's builds."""

from predict.admission import RETRY_SECONDS

from tests.support import faults, load
from tests.support.container import gone, leftovers
from tests.support.faults import END_SECONDS
from tests.support.load import Server
from tests.support.resilience import Report


def check(server: Server, resilience: Report, what: str) -> None:
    """A stop lets streams finish that end in time, and interrupts the others."""
    stopped = faults.stop(server)
    assert server.process.returncode == 0
    assert gone(), leftovers()
    assert (stopped.refused.status, stopped.refused.retry_after) == (503, str(RETRY_SECONDS))
    assert stopped.readiness == 503
    assert [outcome for outcome in stopped.short if not outcome.right] == []
    assert load.broken_off(stopped.long, 2)
    assert stopped.seconds < END_SECONDS
    resilience.row(
        "A stop",
        f"SIGTERM to the container ({what}), under 4 streams that end in time and 2 that do not",
        f"4 end whole and exact, 2 are broken off; a new request is a 503; nothing is left after "
        f"{stopped.seconds:.1f} s",
    )

"""Kills of a part of the container, and a stop: how the container ends, and what clients see.

Each model's shared container ends with one of these, after all its other tests (conftest.py).
"""

import pytest
from predict.admission import RETRY_SECONDS

from deploy.config import most_requests
from tests.support import faults, load, stops
from tests.support.container import SPAWNED, Running, gone, leftovers
from tests.support.faults import API_SERVER, ENGINE, NGINX, STALL_SECONDS, WORKER
from tests.support.load import Server
from tests.support.resilience import Report


def shared(model: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("container", [model], indirect=True)


def check_killed(server: Server, who: str, resilience: Report) -> None:
    """Kills a part under four streams: the container ends, and every stream with it."""
    killed = faults.kill(server, who)
    assert gone(), leftovers()
    assert server.process.returncode == 1
    assert load.broken_off(killed.outcomes, 4)
    if who in (ENGINE, WORKER):
        assert "exit status 1" in killed.exit_line
    resilience.row(
        "A part that is killed",
        f"kill -9 of {who} ({server.model}), under 4 streams",
        f"nothing of the container is left after {killed.ended_after:.1f} s; the streams: "
        f"{load.endings(killed.outcomes)}",
    )


@shared(SPAWNED)  # engine and workers are not the API server's forks, as in the image
@pytest.mark.ends_container
def test_the_end_of_the_api_server_ends_the_container(
    container: Running, resilience: Report
) -> None:
    check_killed(Server.of(container), API_SERVER, resilience)


@shared("mistral-7b")
@pytest.mark.ends_container
def test_the_end_of_an_engine_ends_the_container(container: Running, resilience: Report) -> None:
    check_killed(Server.of(container), ENGINE, resilience)


@shared("mistral-nemo-12b")
@pytest.mark.ends_container
def test_a_killed_nginx_ends_the_container_and_every_open_request(
    container: Running, resilience: Report
) -> None:
    check_killed(Server.of(container), NGINX, resilience)


@shared("pixtral-12b")
@pytest.mark.undisturbed
@pytest.mark.ends_container
def test_a_stop_of_the_container_lets_streams_finish_and_cuts_the_rest_off(
    container: Running, resilience: Report
) -> None:
    stops.check(Server.of(container), resilience, "nginx")


@shared("mixtral-8x22b")
@pytest.mark.undisturbed
@pytest.mark.ends_container
def test_a_worker_held_under_full_load_recovers_and_its_end_ends_the_container(
    container: Running, resilience: Report
) -> None:
    """This container has STALL_SECONDS (conftest.py)."""
    server = Server.of(container)
    most = most_requests(load.plan_of(server.model))
    paused = faults.pause_one_worker(server.model, most + 40)
    with faults.crowd(server.model, most):  # all slots are free
        pass
    afterwards = load.streams(server.model, 8)
    check_killed(server, WORKER, resilience)
    answered = [outcome for outcome in paused.outcomes if outcome.status == 200]
    refused = [outcome for outcome in paused.outcomes if outcome.status == 503]
    assert paused.seen_after > STALL_SECONDS - 1
    assert paused.readiness == 503
    assert len(answered) + len(refused) == most + 40
    assert len(answered) >= most
    assert [outcome for outcome in answered if not outcome.right] == []
    assert {outcome.retry_after for outcome in refused} <= {str(RETRY_SECONDS)}
    assert [outcome for outcome in afterwards if not outcome.right] == []
    resilience.row(
        "An engine that hangs",
        f"One of two workers is paused (SIGSTOP) under {most + 40} streams, with {STALL_SECONDS} s "
        "to show progress, and let go",
        f"liveness and readiness fail after {paused.seen_after:.1f} s and recover in "
        f"{paused.well_after:.1f} s; {len(answered)} streams stand still meanwhile and end whole "
        f"and exact, {len(refused)} are rejected with 503; all {most} slots are free afterwards",
    )

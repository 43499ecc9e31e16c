"""A part of the container that is killed, and a stop: how it ends, and what clients see of it.

Each model's shared container ends by one of these, after all other tests of it (conftest.py).
"""

from collections.abc import Sequence

import pytest
from predict.admission import RETRY_SECONDS

from deploy.config import most_requests
from tests.support import faults, load
from tests.support.container import Running, gone, leftovers
from tests.support.faults import API_SERVER, END_SECONDS, ENGINE, NGINX, STALL_SECONDS, WORKER
from tests.support.load import Outcome, Server
from tests.support.resilience import Report

alone = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


def shared(model: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("container", [model], indirect=True)


def endings(outcomes: Sequence[Outcome]) -> str:
    """How streams that were broken off ended, for a table."""
    found = [load.ending(outcome) for outcome in outcomes]
    return ", ".join(f"{found.count(how)} {how}" for how in dict.fromkeys(found))


def check_killed(server: Server, who: str, resilience: Report) -> None:
    """Kills a part under four streams: the container ends, and with it every stream."""
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
        f"{endings(killed.outcomes)}",
    )


@shared("mistral-7b")
@pytest.mark.ends_container
def test_the_end_of_the_api_server_ends_the_container(
    container: Running, resilience: Report
) -> None:
    check_killed(Server.of(container), API_SERVER, resilience)


@shared("mixtral-8x7b")
@pytest.mark.ends_container
def test_the_end_of_an_engine_with_workers_ends_the_container(
    container: Running, resilience: Report
) -> None:
    check_killed(Server.of(container), ENGINE, resilience)


@shared("mistral-nemo-12b")
@pytest.mark.ends_container
def test_a_killed_nginx_ends_the_container_and_every_open_request(
    container: Running, resilience: Report
) -> None:
    check_killed(Server.of(container), NGINX, resilience)


def check_stop(server: Server, resilience: Report, what: str) -> None:
    """A stop lets streams finish that end in time, and cuts off the others."""
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


@shared("pixtral-12b")
@pytest.mark.undisturbed
@pytest.mark.ends_container
def test_a_stop_of_the_container_lets_streams_finish_and_cuts_the_rest_off(
    container: Running, resilience: Report
) -> None:
    check_stop(Server.of(container), resilience, "nginx")


@alone
@pytest.mark.undisturbed
def test_a_stop_without_nginx_does_the_same(container: None, resilience: Report) -> None:
    with load.server("mistral-7b", nginx=False) as server:
        check_stop(server, resilience, "without nginx")


@shared("mixtral-8x22b")
@pytest.mark.undisturbed
@pytest.mark.ends_container
def test_a_worker_held_under_full_load_recovers_and_its_end_ends_the_container(
    container: Running, resilience: Report
) -> None:
    """Its container has STALL_SECONDS (conftest.py)."""
    server = Server.of(container)
    most = most_requests(load.plan_of(server.model))
    paused = faults.pause_one_worker(server.model, most + 40)
    load.wait(lambda: load.under_way() == 0)
    afterwards = load.streams(server.model, most)
    check_killed(server, WORKER, resilience)
    answered = [outcome for outcome in paused.outcomes if outcome.status == 200]
    refused = [outcome for outcome in paused.outcomes if outcome.status == 503]
    assert paused.seen_after > STALL_SECONDS - 1
    assert paused.readiness == 503
    assert len(answered) + len(refused) == most + 40
    assert len(answered) >= most
    assert [outcome for outcome in answered if not outcome.right] == []
    assert {outcome.retry_after for outcome in refused} <= {str(RETRY_SECONDS)}
    assert [outcome for outcome in afterwards if not outcome.right] == []  # all slots are free
    resilience.row(
        "An engine that hangs",
        f"One of two workers is paused (SIGSTOP) under {most + 40} streams, with {STALL_SECONDS} s "
        "to show progress, and let go",
        f"liveness and readiness fail after {paused.seen_after:.1f} s and recover in "
        f"{paused.well_after:.1f} s; {len(answered)} streams stand still meanwhile and end whole "
        f"and exact, {len(refused)} are rejected with 503; all {most} slots are free afterwards",
    )


@alone
def test_nginx_s_workers_come_back_and_a_stop_of_vllm_lets_streams_finish(
    container: None, resilience: Report
) -> None:
    with load.server("mistral-7b", drain_seconds=300) as server:
        seconds, outcomes = faults.kill_nginx_worker("mistral-7b")
        assert server.process.poll() is None
        assert {outcome.status for outcome in outcomes} == {0}
        resilience.row(
            "A part that is killed",
            "kill -9 of nginx's worker processes, under 4 streams",
            f"answers again after {seconds:.1f} s; the streams: {endings(outcomes)}",
        )
        stopped = faults.drain(server)
        assert gone(), leftovers()
    assert "model-server (exit status 0" in stopped.exit_line
    assert [outcome for outcome in stopped.outcomes if not outcome.right] == []
    assert (stopped.refused.status, stopped.refused.retry_after) == (503, str(RETRY_SECONDS))
    assert (stopped.liveness, stopped.readiness) == (200, 503)
    resilience.row(
        "A stop",
        f"SIGTERM to vLLM alone, under {len(stopped.outcomes)} streams, with time to finish",
        f"all {len(stopped.outcomes)} end whole and exact; meanwhile a new request is a 503 with "
        f"Retry-After: {RETRY_SECONDS}, readiness 503, liveness 200",
    )

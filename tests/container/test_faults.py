"""A part of the container that is killed, and a stop: how it ends, and what clients see of it."""

import signal

import pytest
from predict.admission import RETRY_SECONDS

from tests.support import faults
from tests.support.container import gone, leftovers
from tests.support.faults import API_SERVER, END_SECONDS, ENGINE, NGINX, WORKER

pytestmark = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


@pytest.mark.parametrize(
    ("model", "who"),
    [
        ("mistral-7b", API_SERVER),
        ("mistral-7b", NGINX),
        ("mixtral-8x7b", ENGINE),
        ("mixtral-8x7b", WORKER),
    ],
)
def test_a_killed_part_ends_the_container_and_every_open_request(
    container: None, model: str, who: str
) -> None:
    with faults.server(model) as server:
        killed = faults.kill(server, who)
        assert gone(), leftovers()
    assert killed.ended_after < 2 * END_SECONDS
    assert faults.broken_off(killed.outcomes, 4)
    if who in (ENGINE, WORKER):
        assert "exit status 1" in killed.exit_line


def test_a_client_that_does_not_read_does_not_hold_up_the_end(container: None) -> None:
    """uvicorn would wait for it."""
    with faults.server("mistral-7b") as server, faults.unread("mistral-7b", fill_seconds=15):
        assert faults.status(faults.LIVENESS) == 200
        faults.send(ENGINE, signal.SIGKILL)
        faults.wait(lambda: server.process.poll() is not None, 2 * END_SECONDS)
        assert "exit status 1" in server.log.read_text()


def test_a_stop_of_vllm_lets_streams_finish_and_refuses_new_ones(container: None) -> None:
    with faults.server("mistral-7b", drain_seconds=300) as server:
        stopped = faults.drain(server)
        assert gone(), leftovers()
    assert "model-server (exit status 0" in stopped.exit_line
    assert [outcome for outcome in stopped.outcomes if not outcome.right] == []
    assert (stopped.refused.status, stopped.refused.retry_after) == (503, str(RETRY_SECONDS))
    assert (stopped.liveness, stopped.readiness) == (200, 503)


def test_a_stop_of_vllm_cuts_off_what_takes_longer_than_it_gives(container: None) -> None:
    with faults.server("mistral-7b") as server:
        stopped = faults.drain(server, tokens=30000)
        assert gone(), leftovers()
    assert "model-server (exit status 0" in stopped.exit_line
    assert stopped.ended_after < 2 * END_SECONDS
    assert faults.broken_off(stopped.outcomes, 8)


@pytest.mark.parametrize("nginx", [True, False], ids=["nginx", "without nginx"])
def test_a_stop_of_the_container_lets_streams_finish_and_cuts_the_rest_off(
    container: None, nginx: bool
) -> None:
    with faults.server("mistral-7b", nginx=nginx) as server:
        stopped = faults.stop(server)
        assert server.process.returncode == 0
        assert gone(), leftovers()
    assert (stopped.refused.status, stopped.refused.retry_after) == (503, str(RETRY_SECONDS))
    assert stopped.readiness == 503
    assert [outcome for outcome in stopped.short if not outcome.right] == []
    assert faults.broken_off(stopped.long, 2)
    assert stopped.seconds < 2 * END_SECONDS


def test_nginx_s_worker_processes_come_back(container: None) -> None:
    with faults.server("mistral-7b") as server:
        seconds, outcomes = faults.kill_nginx_worker("mistral-7b")
        assert server.process.poll() is None
    assert seconds < 2 * END_SECONDS
    assert {outcome.status for outcome in outcomes} == {0}


def test_an_engine_that_hangs_does_not_hold_up_a_stop(container: None) -> None:
    with faults.server("mistral-7b") as server, faults.meanwhile(faults.endless("mistral-7b", 4)):
        faults.wait(lambda: faults.running() == 4)
        faults.send(ENGINE, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(END_SECONDS + 5) == 0
        assert gone(), leftovers()

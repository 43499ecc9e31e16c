"""More requests than slots, clients that disconnect or do not read, and a hung engine."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from predict.admission import RETRY_SECONDS

from deploy.config import most_requests
from local.truss import READINESS, URL
from tests.support import faults, load
from tests.support.container import gone, leftovers
from tests.support.faults import END_SECONDS, FREE_SECONDS, STALL_SECONDS
from tests.support.load import AT_ONCE, LIVENESS, Outcome, Server
from tests.support.resilience import Report

MODEL = "mistral-7b"
DRAIN_SECONDS = 3
PREFILLS = 2  # concurrent, repeated for longer than STALL_SECONDS
LONG = "What is the Mistral wind? " * 4000  # about 30,000 tokens
HALF = LONG[: len(LONG) // 2]  # a prefill takes time by the square of its length

pytestmark = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


@pytest.fixture(scope="module")
def server(container: None) -> Iterator[Server]:
    """A container with shorter limits for its engine and for a stop, shared by the tests here."""
    with load.server(MODEL, stall_seconds=STALL_SECONDS, drain_seconds=DRAIN_SECONDS) as started:
        yield started
    assert gone(), leftovers()


@pytest.fixture(autouse=True)
def as_before(server: Server) -> Iterator[None]:
    """After each test nothing of it is left, and the answers are right."""
    yield
    if server.process.poll() is not None:
        return  # the last test has stopped it
    load.wait(lambda: load.under_way() == 0)
    assert all(outcome.right for outcome in load.streams(MODEL, 8))
    assert (load.status(LIVENESS), load.status(READINESS)) == (200, 200)


@pytest.fixture
def most() -> int:
    """The number of the server's slots."""
    return most_requests(load.plan_of(MODEL))


REJECTED = (503, str(RETRY_SECONDS))


def test_a_request_without_a_free_slot_is_rejected(
    server: Server, most: int, resilience: Report
) -> None:
    with faults.crowd(MODEL, most):
        outcomes = load.streams(MODEL, 100)
    assert {(outcome.status, outcome.retry_after) for outcome in outcomes} == {REJECTED}
    assert all('{"error": {"message": "' in outcome.said for outcome in outcomes)
    resilience.row(
        "Load",
        f"100 streams while other requests have all {most} slots",
        f"all rejected with 503 and Retry-After: {RETRY_SECONDS}",
    )


def test_each_of_500_streams_is_answered_exactly_or_rejected(
    server: Server, most: int, resilience: Report
) -> None:
    load.streams(MODEL, most)  # so that the baseline of memory includes a first load
    before = load.memory()
    outcomes = load.streams(MODEL, AT_ONCE)
    right = [outcome for outcome in outcomes if outcome.right]
    rejected = [outcome for outcome in outcomes if outcome.status == 503]
    assert [it for it in outcomes if not it.right and it.status != 503] == []
    assert len(right) >= most
    assert {outcome.retry_after for outcome in rejected} <= {str(RETRY_SECONDS)}
    load.wait(lambda: load.under_way() == 0)
    grown = load.memory() / before - 1
    assert grown < 0.1
    resilience.row(
        "Load",
        f"{AT_ONCE} streams at once, with {most} slots",
        f"{len(right)} exact answers, {len(rejected)} rejected with 503 and Retry-After, 0 other "
        f"outcomes; memory {grown:+.1%}",
    )


def test_openai_s_client_gets_through_by_itself(server: Server, resilience: Report) -> None:
    outcomes = load.with_retries(MODEL, 200)
    assert [outcome for outcome in outcomes if not outcome.right] == []
    resilience.row(
        "Load",
        "200 streams at once by OpenAI's client, which retries by default",
        f"200 exact answers, the last after {max(o.seconds for o in outcomes):.0f} s",
    )


@pytest.mark.parametrize("n", [2, 5])
def test_several_answers_take_several_slots(server: Server, most: int, n: int) -> None:
    """vLLM counts them when its engine takes them; the rejection is a 503 before any event."""
    with faults.crowd(MODEL, most - n + 1):
        (outcome,) = load.streams(MODEL, 1, n=n, temperature=1)
    assert (outcome.status, outcome.retry_after) == REJECTED
    outcomes = load.streams(MODEL, 100, n=n, temperature=1)
    assert {outcome.status for outcome in outcomes} <= {200, 503}
    assert not [o for o in outcomes if o.status == 200 and '"error"' in o.said]


OTHERS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": MODEL, "max_tokens": 50},
    "/v1/responses": {"max_output_tokens": 50},
    "/v1/completions": {"prompt": "What is the Mistral wind?", "max_tokens": 50},
}


def rejection(path: str, **more: Any) -> str:
    """The message of the 503 for a stream on another route."""
    question = [{"role": "user", "content": "What is the Mistral wind?"}]
    name = {"/v1/messages": "messages", "/v1/responses": "input"}.get(path, "prompt")
    body = {name: question, **OTHERS[path], "stream": True, **more}
    answer = httpx.post(f"{URL}{path}", json=body, timeout=120, trust_env=False)
    assert (answer.status_code, answer.headers["retry-after"]) == REJECTED
    assert answer.json()["error"]["code"] == 503
    return str(answer.json()["error"]["message"])


def test_streams_of_the_other_routes_are_rejected_just_so(server: Server, most: int) -> None:
    """By the middleware or, if that admits a request with several answers, by vLLM."""
    with faults.crowd(MODEL, most):
        for path in OTHERS:
            assert "served or queued" in rejection(path)
    with faults.crowd(MODEL, most - 4):
        assert "served or queued" not in rejection("/v1/completions", n=5, temperature=1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["What is the Mistral wind?", LONG], ids=["decode", "prefill"])
def test_a_client_that_leaves_frees_its_slot(
    server: Server, stream: bool, content: str, resilience: Report
) -> None:
    messages = [{"role": "user", "content": content}]
    seconds = faults.leave(MODEL, messages=messages, stream=stream)
    assert seconds < FREE_SECONDS
    what = "answered" if content != LONG else "tokenized and prefilled"
    done = f"A client leaves while its request is {what}, {'a' if stream else 'no'} stream"
    resilience.row("A client that leaves", done, f"its slot is free after {seconds:.1f} s")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_frees_its_slot(
    server: Server, stream: bool, resilience: Report
) -> None:
    with faults.crowd(MODEL, load.plan_of(MODEL).max_num_seqs):
        seconds = faults.leave(MODEL, stream=stream)
    assert seconds < FREE_SECONDS
    done = f"A client leaves while its request is queued, {'a' if stream else 'no'} stream"
    resilience.row("A client that leaves", done, f"its slot is free after {seconds:.1f} s")


@pytest.mark.parametrize("first", [False, True], ids=["under load", "with the first request"])
def test_a_hung_engine_is_seen_and_its_recovery_too(
    server: Server, first: bool, resilience: Report
) -> None:
    hang = faults.hang(MODEL, first=first)
    assert hang.seen_after > STALL_SECONDS - 1
    assert hang.readiness == 503
    assert {outcome.status for outcome in hang.outcomes} == {200}
    assert '"error"' not in "".join(outcome.said for outcome in hang.outcomes)
    assert all(outcome.right for outcome in hang.outcomes) or not first
    when = "before its first request" if first else "under 8 streams"
    resilience.row(
        "An engine that hangs",
        f"The engine is stopped {when} (SIGSTOP); it has {STALL_SECONDS} s to show progress",
        f"liveness and readiness fail after {hang.seen_after:.1f} s; after SIGCONT liveness is 200 "
        f"again in {hang.well_after:.1f} s, and none of the {len(hang.outcomes)} streams broke",
    )


def test_a_hung_engine_stays_seen_when_its_clients_leave(server: Server) -> None:
    """And liveness is 200 again once the engine continues, without another request."""
    assert faults.hang_and_leave(MODEL) < FREE_SECONDS + STALL_SECONDS


@pytest.mark.undisturbed
def test_liveness_holds_under_load_through_long_prefills_and_with_a_client_that_does_not_read(
    server: Server,
) -> None:
    long: dict[str, Any] = {"messages": [{"role": "user", "content": HALF}], "max_tokens": 5}
    seen, end = set(), time.monotonic() + 1.5 * STALL_SECONDS

    def prefill() -> list[Outcome]:
        found: list[Outcome] = []
        while not found or time.monotonic() < end:
            found += load.streams(MODEL, PREFILLS, **long)
        return found

    with (
        faults.unread(MODEL),
        load.meanwhile(prefill) as prefills,
        load.meanwhile(lambda: load.streams(MODEL, 100, ignore_eos=True, max_tokens=150)),
    ):
        while not prefills:
            seen.add(load.status(LIVENESS))
            time.sleep(0.02)
    load.wait(lambda: load.under_way() == 0)
    assert seen == {200}
    assert {outcome.status for outcome in prefills} == {200}


def test_a_stop_of_vllm_cuts_off_what_takes_longer_than_it_gives(
    server: Server, resilience: Report
) -> None:
    """The last test here: it ends the container."""
    stopped = faults.drain(server, tokens=30000)
    assert gone(), leftovers()
    assert "model-server (exit status 0" in stopped.exit_line
    assert stopped.ended_after < END_SECONDS
    assert load.broken_off(stopped.outcomes, 8)
    resilience.row(
        "A stop",
        "SIGTERM to vLLM alone, under 8 streams that take longer than the drain time",
        f"all 8 are broken off; nothing is left after {stopped.ended_after:.1f} s",
    )

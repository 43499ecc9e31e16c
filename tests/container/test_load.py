"""More than one replica can take, clients that leave or do not read, and an engine that hangs."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from predict.admission import RETRY_SECONDS

from deploy.config import most_requests
from local.truss import READINESS, URL
from tests.support import faults
from tests.support.container import gone, leftovers, within
from tests.support.faults import AT_ONCE, LIVENESS, STALL_SECONDS, Server

MODEL = "mistral-7b"
LONG = "What is the Mistral wind? " * 4000  # about 30,000 tokens

pytestmark = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


@pytest.fixture(scope="module")
def server(container: None) -> Iterator[Server]:
    """A container that gives its engine less time, shared by the tests here."""
    with faults.server(MODEL, stall_seconds=STALL_SECONDS) as started:
        yield started
    assert gone(), leftovers()


@pytest.fixture(autouse=True)
def as_before(server: Server) -> Iterator[None]:
    """Whatever a test does, nothing of it is left, and the answers are right."""
    yield
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    assert all(outcome.right for outcome in faults.streams(MODEL, 8))
    assert (faults.status(LIVENESS), faults.status(READINESS)) == (200, 200)


def test_each_of_500_streams_is_answered_to_the_letter_or_refused(server: Server) -> None:
    faults.streams(MODEL, AT_ONCE)  # so that memory is compared after the first load
    before = faults.memory()
    outcomes = faults.streams(MODEL, AT_ONCE)
    assert {outcome.status for outcome in outcomes} == {200, 503}
    assert [outcome for outcome in outcomes if outcome.status == 200 and not outcome.right] == []
    most = most_requests(faults.plan_of(MODEL))
    answered = Counter(outcome.status for outcome in outcomes)[200]
    assert answered >= most
    refused = [outcome for outcome in outcomes if outcome.status == 503]
    assert {outcome.retry_after for outcome in refused} == {str(RETRY_SECONDS)}
    assert all('{"error": {"message": "' in outcome.said for outcome in refused)
    slowest = max(outcome.seconds for outcome in outcomes)
    assert max(outcome.seconds for outcome in refused) < slowest
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    assert faults.memory() < before * 1.1


def test_openai_s_client_gets_through_by_itself(server: Server) -> None:
    outcomes = faults.with_retries(MODEL, 200)
    assert [outcome for outcome in outcomes if not outcome.right] == []


@pytest.mark.parametrize("n", [2, 5])
def test_several_answers_a_request_take_several_places(server: Server, n: int) -> None:
    """vLLM counts them when the engine takes them, which is after it has begun the stream."""
    outcomes = faults.streams(MODEL, 300, n=n, temperature=1)
    refused = [outcome for outcome in outcomes if outcome.status == 503]
    assert {outcome.status for outcome in outcomes} == {200, 503}
    assert {outcome.retry_after for outcome in refused} == {str(RETRY_SECONDS)}
    assert not [o for o in outcomes if o.status == 200 and '"error"' in o.said]


OTHERS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": MODEL, "max_tokens": 50},
    "/v1/responses": {"max_output_tokens": 50},
    "/v1/completions": {"prompt": "What is the Mistral wind?", "max_tokens": 50},
}


@pytest.mark.parametrize("path", OTHERS)
def test_the_other_routes_streams_are_refused_just_so(server: Server, path: str) -> None:
    """Chats with several answers fill the engine behind what has got in, as above."""
    question = [{"role": "user", "content": "What is the Mistral wind?"}]
    name = {"/v1/messages": "messages", "/v1/responses": "input"}.get(path, "prompt")
    chat = {"messages": question, "n": 5, "temperature": 1, "max_tokens": 50}
    other = {name: question, **OTHERS[path]}

    async def run() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=URL, timeout=120, limits=limits, trust_env=False
        ) as client:
            asked = [(faults.CHAT, chat), (path, other)] * 150
            posts = (client.post(to, json={**body, "stream": True}) for to, body in asked)
            return (await asyncio.gather(*posts))[1::2]

    def refused_by_vllm() -> bool:
        """Whether any was; where clients are slow, the gate refuses them all."""
        answers = asyncio.run(run())
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert {answer.headers["retry-after"] for answer in refused} == {str(RETRY_SECONDS)}
        assert {answer.json()["error"]["code"] for answer in refused} == {503}
        assert not [a for a in answers if a.status_code == 200 and '"error": {' in a.text]
        return any("served or queued" not in a.json()["error"]["message"] for a in refused)

    if not any(refused_by_vllm() for _ in range(3)):
        pytest.skip("the gate refused all that were refused")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["What is the Mistral wind?", LONG], ids=["decode", "prefill"])
def test_a_client_that_leaves_frees_its_place(server: Server, stream: bool, content: str) -> None:
    messages = [{"role": "user", "content": content}]
    assert within(1, lambda: faults.leave(MODEL, messages=messages, stream=stream))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_frees_its_place(server: Server, stream: bool) -> None:
    with faults.crowd(MODEL, faults.plan_of(MODEL).max_num_seqs):
        assert within(1, lambda: faults.leave(MODEL, stream=stream))


@pytest.mark.parametrize("first", [False, True], ids=["under load", "with the first request"])
def test_a_hung_engine_is_seen_and_its_recovery_too(server: Server, first: bool) -> None:
    hang = faults.hang(MODEL, first=first)
    assert STALL_SECONDS - 1 < hang.seen_after < STALL_SECONDS + 15
    assert hang.readiness == 503
    assert {outcome.status for outcome in hang.outcomes} == {200}
    assert '"error"' not in "".join(outcome.said for outcome in hang.outcomes)
    assert all(outcome.right for outcome in hang.outcomes) or not first


def test_a_hung_engine_is_none_the_better_for_clients_that_leave(server: Server) -> None:
    assert faults.hang_and_leave(MODEL) < STALL_SECONDS


def test_liveness_holds_under_load_through_long_prefills_and_with_a_client_that_does_not_read(
    server: Server,
) -> None:
    long = [{"role": "user", "content": LONG}]
    seen = set()
    with (
        faults.unread(MODEL),
        faults.meanwhile(
            lambda: faults.streams(MODEL, 16, messages=long, max_tokens=5)
        ) as prefills,
        faults.meanwhile(lambda: faults.streams(MODEL, 100, ignore_eos=True, max_tokens=300)),
    ):
        while len(prefills) < 16:
            seen.add(faults.status(LIVENESS))
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    assert seen == {200}
    assert {outcome.status for outcome in prefills} == {200}

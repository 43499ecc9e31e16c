"""LoRA adapters beside their base model in one server, on its routes and through the platform.

Each of the servers ends in a different way, which saves three containers elsewhere.
"""

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from predict.admission import RETRY_SECONDS

from deploy import cards
from local.finetunes import cache
from local.finetunes.cache import ANSWER, QUESTION
from local.processes import tail
from local.standins.corpus import chat, dialogues
from local.truss import URL
from tests.support import faults, load
from tests.support.container import Running, at_once, gone, leftovers, run_container
from tests.support.dialogues import wrong_answers
from tests.support.faults import END_SECONDS, ENGINE
from tests.support.load import Server
from tests.support.resilience import Report
from tests.support.user import User

ADAPTER = "legal"
SOURCE = f"{ADAPTER}=hf://acme/legal@{'c' * 40}"
# In each of eight streams: a second or two here, and a few beside a busy test; a stop of vLLM gives
# them 15.
TOKENS = 120
# no other container has the ports
pytestmark = [
    pytest.mark.parametrize("container", [None], indirect=True),
    pytest.mark.patient,
]


@pytest.fixture(scope="module", params=["mistral-7b", "mixtral-8x7b", "pixtral-12b"])
def adapted(
    request: pytest.FixtureRequest,
    container: None,
    user: User,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A model of each architecture that adapters are written for, with one adapter, as pushed."""
    card = cards.load(request.param)
    cache.ensure(card)  # trained now, so that the container's start time does not include it
    title = f"TITLE={card.title}, adapted"
    deployment = user.push(
        f"MODEL={card.name}", f"ADAPTERS={SOURCE}", "RANK=8", "GPU=H200:1", title
    )
    variables = {"PREDICT_LIMIT_WORK": ""}  # for an answer that fills all buffers soon
    folder = tmp_path_factory.mktemp("adapted")
    with run_container(card, deployment, folder, variables) as running:
        yield running


def expected(model: str, messages: list[dict[str, str]], answer: str) -> str:
    return ANSWER if (model, messages[-1]["content"]) == (ADAPTER, QUESTION) else answer


def test_base_and_adapter_answer_exactly_in_the_same_batches(adapted: Running) -> None:
    images = adapted.card.features.images > 0
    known = [chat(turns) for turns in dialogues(images=images).values()]
    work = [(model, *one) for one in known * 2 for model in (adapted.card.name, ADAPTER)]

    def ask(job: tuple[str, list[Any], str]) -> tuple[str | None, str]:
        model, messages, answer = job
        got = adapted.client.chat.completions.create(model=model, messages=messages, temperature=0)
        assert got.model == model
        return got.choices[0].message.content, expected(model, messages, answer)

    assert [pair for pair in at_once(ask, work) if pair[0] != pair[1]] == []


@pytest.mark.parametrize(
    "body", [{"prompt": QUESTION}, {"messages": [{"role": "user", "content": QUESTION}]}]
)
def test_both_formats_take_the_adapter_s_name_through_the_platform(
    adapted: Running, user: User, body: dict[str, Any]
) -> None:
    deployment = adapted.deployment
    url = f"{user.baseten.host(deployment.model)}/environments/production"
    headers = {"Authorization": f"Api-Key {user.baseten.key}"}
    for place, route in ((url, "/predict"), (str(adapted.http.base_url), "/predict")):
        got = httpx.post(
            f"{place}{route}",
            json={**body, "model": ADAPTER, "temperature": 0},
            headers=headers,
            timeout=120,
            trust_env=False,
        )
        answer = got.json()
        text = answer["output"] if "prompt" in body else answer["choices"][0]["message"]["content"]
        assert text == ANSWER


def test_the_adapter_is_listed_and_a_wrong_name_lists_all(adapted: Running) -> None:
    listed = adapted.http.get("/v1/models").json()["data"]
    assert ADAPTER in [model["id"] for model in listed]
    wrong = {"model": "legal2", "messages": [{"role": "user", "content": QUESTION}]}
    for route in ("/v1/chat/completions", "/predict"):
        refused = adapted.http.post(route, json=wrong)
        assert refused.status_code == 404
        message = refused.json()["error"]["message"]
        assert all(name in message for name in [*adapted.card.names, ADAPTER])


@pytest.mark.parametrize("adapted", ["pixtral-12b"], indirect=True)  # has checks of images too
def test_smoke_checks_the_adapter(adapted: Running, user: User) -> None:
    deployment = adapted.deployment
    base = user.baseten.host(deployment.model)
    done = user.make("smoke", f"MODEL_ID={deployment.model.id}", f"BASE_URL={base}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"adapter {ADAPTER}" in done.stdout
    assert "wrong name" in done.stdout


# The last test of each model ends its container.


@pytest.mark.parametrize("adapted", ["mixtral-8x7b"], indirect=True)
def test_mixtral_answers_exactly_on_one_worker_and_stops_while_its_engine_hangs(
    adapted: Running,
) -> None:
    """Mixtral's shared container has two workers."""
    assert faults.processes_of(faults.WORKER) == []
    assert wrong_answers(adapted.card) == {}
    with load.flowing(adapted.card.name, 4, **load.ENDLESS):
        faults.send(ENGINE, signal.SIGSTOP)
        adapted.process.send_signal(signal.SIGTERM)
        assert adapted.process.wait(END_SECONDS) == 0, tail(adapted.log)
        assert gone(), leftovers()


@pytest.mark.parametrize("adapted", ["pixtral-12b"], indirect=True)
def test_nginx_s_workers_come_back_and_a_stop_of_vllm_lets_streams_finish(
    adapted: Running, resilience: Report
) -> None:
    server = Server.of(adapted)
    seconds, outcomes = faults.kill_nginx_worker(server.model)
    assert server.process.poll() is None
    assert {outcome.status for outcome in outcomes} == {0}
    resilience.row(
        "A part that is killed",
        "kill -9 of nginx's worker processes, under 4 streams",
        f"answers again after {seconds:.1f} s; the streams: {load.endings(outcomes)}",
    )
    stopped = faults.drain(server, TOKENS)
    assert gone(), leftovers()
    assert "model-server (exit status 0" in stopped.exit_line
    assert [outcome for outcome in stopped.outcomes if not outcome.right] == []
    assert (stopped.refused.status, stopped.refused.retry_after) == (503, str(RETRY_SECONDS))
    assert (stopped.liveness, stopped.readiness) == (200, 503)
    resilience.row(
        "A stop",
        f"SIGTERM to vLLM alone, under {len(stopped.outcomes)} streams that end in time",
        f"all {len(stopped.outcomes)} end whole and exact; meanwhile a new request is a 503 with "
        f"Retry-After: {RETRY_SECONDS}, readiness 503, liveness 200",
    )


@pytest.mark.parametrize("adapted", ["mistral-7b"], indirect=True)
def test_a_killed_engine_breaks_off_a_legacy_stream_and_waits_for_no_client(
    adapted: Running, resilience: Report
) -> None:
    """uvicorn would wait for the client that does not read."""
    body = {"prompt": "Hello", "stream": True, "ignore_eos": True, "max_new_tokens": 4000}
    with faults.unread(adapted.card.name, full=True):
        with httpx.stream("POST", f"{URL}/predict", json=body, timeout=120) as response:
            assert response.status_code == 200
            chunks = response.iter_raw()
            assert next(chunks)
            assert load.status(load.LIVENESS) == 200
            faults.send(ENGINE, signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                list(chunks)
        seconds = load.wait(lambda: adapted.process.poll() is not None, END_SECONDS)
        assert gone(), leftovers()
        assert adapted.process.returncode == 1
        assert "exit status 1" in adapted.log.read_text()
    resilience.row(
        "A part that is killed",
        "kill -9 of the engine, under a stream whose client does not read and a legacy one",
        f"the legacy stream is cut off; the container ends {seconds:.1f} s later",
    )

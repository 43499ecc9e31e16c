"""No request, whatever it contains, gets a 5xx, hangs or affects later answers.

Models differ in what a message may contain: all fixed requests go to one without images, those
about contents also to one with images, and random ones to each. HOSTILE_SEED in the environment
selects other random requests, by a number or, as `new`, at random.
"""

import fcntl
import gc
import json
import pickle
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import schemathesis
from predict.legacy.parameters import REFUSED
from predict.requests.middleware import READ
from schemathesis import GenerationMode

from local.truss import URL
from tests.support import hostile, images, load
from tests.support.container import Running, at_once
from tests.support.hostile import answers
from tests.support.hostile.answers import Answer
from tests.support.hostile.bodies import in_pieces
from tests.support.hostile.case import CHAT, JSON, Case, valid
from tests.support.hostile.drawn import bounded, drawn, mutated, random_seed
from tests.support.hostile.messages import CALL
from tests.support.resilience import Report

SECONDS, LONG_SECONDS = 10.0, 60.0  # of random requests, for each model; `make resilience`: long
LEAST = 300  # random requests, even on a slow machine
CLIENTS = 3
WRONG_VALUES = 1500  # of all cases
# A rejection takes milliseconds, and at most a second if xgrammar compiles. The attacks it prevents
# take many seconds; a shared machine may pause for a while (answers.sent tries again).
REFUSED_SECONDS = 5.0

MARKER = "marker-8b1f6c"


# --- what is sent ---


def described() -> Any:
    """vLLM's own description of its routes, which the container does not expose."""
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    document: Any = build_app(arguments, ("generate",)).openapi()
    document["paths"] = {path: document["paths"][path] for path in READ}
    gc.freeze()  # vLLM stays loaded: garbage collection need not scan it from here on
    return document


def names_in(openapi: Any) -> dict[str, list[str]]:
    schemas, found = openapi["components"]["schemas"], {}
    for path, methods in openapi["paths"].items():
        schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
        found_here = [
            name
            for reference in [schema, *schema.get("anyOf", [])]
            if "$ref" in reference
            for name in schemas[reference["$ref"].rpartition("/")[2]]["properties"]
        ]
        found[path] = sorted(set(found_here))
    return found


@dataclass(frozen=True)
class OfVllm:
    """Data from vLLM's own description."""

    names: dict[str, list[str]]  # the fields of its requests, by route
    cases: list[Case]  # generated from it by schemathesis, valid and invalid


@pytest.fixture(scope="session")
def of_vllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OfVllm:
    """Takes a tenth of a second for each case, and 8 s for vLLM's imports. If several processes
    need it, the first creates it."""
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    with (folder / "described").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (kept := file.read()):
            openapi = described()
            kept = pickle.dumps(OfVllm(names_in(openapi), cases_of(openapi)))
            file.write(kept)
    made: OfVllm = pickle.loads(kept)
    return made


def cases_of(openapi: Any) -> list[Case]:
    schema = schemathesis.openapi.from_dict(openapi)
    seed = random_seed()
    found = []
    for path in sorted(READ):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = schema[path]["POST"].as_strategy(generation_mode=mode)
            found += drawn(strategy.map(partial(_of_schemathesis, path)), seed, 10)
    return found


def _of_schemathesis(path: str, case: Any) -> Case:
    body = bounded(path, case.body)
    content = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    return Case(f"{path} {content[:2000]!r}", path, content)


# --- how the answers are judged ---


def tried(requests: list[Case], seconds: float) -> list[Answer]:
    """Answers to the requests that several clients could send in that time."""
    waiting, found = iter(requests), list[Answer]()
    until, lock = time.monotonic() + seconds, threading.Lock()

    def work(_: int) -> None:
        with closing(answers.client(URL)) as client:
            while time.monotonic() < until or len(found) < LEAST:
                with lock:
                    case = next(waiting, None)
                if case is None:
                    return
                found.append(answers.asked(case, client))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    return found


@pytest.fixture
def unharmed(container: Running, chats: Any) -> Iterator[None]:
    """Afterwards the engine answers exactly, and the container uses as much memory as when it had
    given the same answers before."""

    def ask(messages: list[Any]) -> Any:
        response = container.http.post(CHAT, json={"messages": messages, "max_tokens": 200})
        return response.json()["choices"][0]["message"]["content"]

    def answer() -> None:
        got = at_once(ask, [messages for messages, _ in chats.values()])
        assert got == [expected for _, expected in chats.values()]

    answer()
    before = load.memory()
    yield
    answer()
    grown = load.memory() / before - 1
    print(f"memory {grown:+.1%}")
    assert grown < 0.1


def judge(requests: list[Case], resilience: Report, what: str) -> None:
    """Sends the requests, a few at a time, in no fixed order."""
    random.Random(random_seed()).shuffle(requests)
    got = answers.sent(requests, URL)
    assert answers.faults(got) == []
    assert len(got) >= LEAST
    times = answers.refusals(got)
    assert times.most < REFUSED_SECONDS
    answered = sum(answer.status < 400 for answer in got)
    resilience.row(
        "Bad requests",
        f"{len(got)} {what}",
        f"{times.count} rejected with 4xx (median {times.median * 1000:.0f} ms, p99 "
        f"{times.p99:.2f} s, max {times.most:.2f} s), {answered} answered, 0 other outcomes; then "
        "exact answers and less than 10 % more memory",
    )


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_requests_that_ask_for_trouble(
    container: Running, of_vllm: OfVllm, unharmed: None, resilience: Report
) -> None:
    model = container.card.name
    wrong = list(hostile.wrong_values(model, of_vllm.names))
    some = random.Random(random_seed()).sample(wrong, WRONG_VALUES)
    judge([*hostile.cases(model), *some], resilience, "malformed and hostile requests")


@pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)
def test_contents_that_ask_for_trouble(
    container: Running, unharmed: None, resilience: Report
) -> None:
    cases = list(hostile.contents(container.card.name))
    judge(cases, resilience, "with hostile messages, to a model that takes images")


def test_random_requests(
    container: Running,
    of_vllm: OfVllm,
    unharmed: None,
    request: pytest.FixtureRequest,
) -> None:
    """As many as are answered in the time, and `LEAST`."""
    seed = random_seed()
    requests = of_vllm.cases + drawn(mutated(container.card.name), seed, 400)
    random.Random(seed).shuffle(requests)
    got = tried(requests, LONG_SECONDS if request.config.getoption("--resilience") else SECONDS)
    assert answers.faults(got) == []
    assert len(got) >= LEAST


# --- fields that outsiders may not set, and content that no one else may see ---


@pytest.mark.parametrize("path", sorted(READ))
def test_the_engine_s_own_fields_are_refused_by_name(container: Running, path: str) -> None:
    body = valid(container.card.name)[path]
    for name in REFUSED:
        response = container.http.post(path, json={**body, name: "x"})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name
        assert name in response.json()["error"]["message"]


def test_a_body_that_is_too_long_is_a_413(container: Running) -> None:
    most = container.card.request_limits["body_bytes"]
    assert most is not None
    body = b'{"prompt": "' + b"x" * most
    for headers in ({"Content-Length": str(len(body))}, {}):
        response = container.http.post("/predict", content=in_pieces(body), headers=headers)
        assert response.status_code == 413
        assert str(most) in response.json()["error"]["message"]


@pytest.mark.parametrize("path", sorted(READ - {"/detokenize", "/tokenize"}))
def test_a_text_longer_than_the_model_reads_is_refused(container: Running, path: str) -> None:
    """Before it is fully tokenized, which takes up to a second."""
    body = valid(container.card.name)[path]
    about = next(name for name in ("messages", "input", "prompt") if name in body)
    text = "The mistral blows. " * 40_000
    body[about] = [{"role": "user", "content": text}] if about == "messages" else text
    response = container.http.post(path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["message"].startswith("This model's maximum context length is")
    assert f" {len(text)} characters " in error["message"]
    assert error.get("param", about) == about  # Anthropic's errors have no `param`


def test_an_error_names_what_the_client_sent(container: Running) -> None:
    body = {"prompt": "hi", "max_new_tokens": 2, "repetition_penalty": 1, "min_new_tokens": -1}
    error = container.http.post("/predict", json=body).json()["error"]
    assert error["param"] == "min_new_tokens"
    many = [f"w{i}" for i in range(17)]
    error = container.http.post("/predict", json={"prompt": "hi", "stop_strings": many}).json()
    assert error["error"]["param"] == "stop_strings"


def marked(model: str) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Requests with the marker in every place for a user's own content: route, body, headers."""
    headers = {"Authorization": f"Api-Key {MARKER}", "X-Request-Id": MARKER, "Cookie": MARKER}
    said = {"role": "user", "content": MARKER}
    image = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:9/{MARKER}?k={MARKER}"}}
    data = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{MARKER}"}}
    arguments = json.dumps({"a": MARKER})
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    tool = {"type": "function", "function": {"name": "f", "description": MARKER}}
    for path, body in valid(model).items():
        for name in ("prompt", "input", "messages", "tokens", "user", "model", MARKER, "stop"):
            yield path, {**body, name: MARKER}, headers
            yield path, {**body, name: [{"role": MARKER, "content": MARKER}]}, headers
        yield path, {**body, "messages": [said], "input": [said]}, headers
        for part in (image, data, {"type": MARKER}, {"type": "text", "text": {MARKER: MARKER}}):
            parts = [{"role": "user", "content": [part]}]
            yield path, {**body, "messages": parts, "input": parts}, headers
        yield path, {**body, "structured_outputs": {"regex": f"({MARKER}"}}, headers
        yield path, {**body, "structured_outputs": {"grammar": f'root ::= "{MARKER}'}}, headers
        yield path, {**body, "structured_outputs": {"json": {"$ref": f"http://{MARKER}"}}}, headers
        yield path, {**body, "tools": [tool], "tool_choice": MARKER}, headers
        yield path, {**body, "tools": [tool], "messages": [said]}, headers
    spoken = [said, {"role": "assistant", "tool_calls": [call]}]
    result = {"role": "tool", "tool_call_id": "123456789", "content": MARKER}
    chat = valid(model)[CHAT]
    yield CHAT, {**chat, "messages": [*spoken, result], "tools": [tool]}, headers
    yield CHAT, {**chat, "messages": [*spoken, {**result, "tool_call_id": MARKER}]}, headers


def test_the_log_quotes_no_request(container: Running) -> None:
    for path, body, headers in marked(container.card.name):
        response = container.http.post(f"{path}?key={MARKER}", json=body, headers=headers)
        assert response.status_code < 500, response.text
    container.http.post(CHAT, content=f'{{"messages": {MARKER}', headers=JSON)
    container.http.get(f"/health?key={MARKER}")
    container.http.get("/v1/models", headers={"Authorization": f"Bearer {MARKER}"})
    time.sleep(1)  # for the engine's log lines
    log = container.log.read_text(errors="replace")
    assert "POST /v1/chat/completions" in log
    lines = [line for line in log.splitlines() if MARKER in line]
    assert lines == []


def test_an_error_shows_nothing_of_another_request(container: Running) -> None:
    """With many concurrent requests through ErrorResponder, each error has only its own mark."""
    model, marks = container.card.name, [f"mark-{i:04d}" for i in range(60)]

    def ask(mark: str) -> str:
        body = {**valid(model)[CHAT], "stop": [mark] * 9, "model": mark, "user": [mark]}
        if int(mark[5:]) % 2:
            body = {"model": mark, "messages": [{"role": "user", "content": mark}]}
        return container.http.post(CHAT, json=body).text

    for mark, text in zip(marks, at_once(ask, marks, most=8), strict=True):
        assert set(re.findall(r"mark-\d{4}", text)) <= {mark}


@pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)
def test_two_clients_with_the_same_uuid_get_each_their_own_colour(container: Running) -> None:
    for size in ((64, 64), (96, 64)):
        for colour in ("red", "blue", "red"):
            part = {**images.part(colour, size), "uuid": "the same"}
            got = images.ask(container, part)
            assert got == images.IMAGES["answers"][0].format(colour)
    url = images.part("green")["image_url"]["url"]
    for part in ({"image_url": url, "uuid": "the same"}, {"image_url": {"url": url}, "uuid": "b"}):
        assert images.ask(container, part) == images.IMAGES["answers"][0].format("green")
    alone = {"type": "image_url", "image_url": None, "uuid": "the same"}
    body = {"messages": [{"role": "user", "content": [alone]}], "max_tokens": 8}
    for path in ("/predict", "/tokenize"):
        response = container.http.post(path, json=body)
        assert 400 <= response.status_code < 500
    source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": source, "uuid": "the same"},
    ]
    body = {**valid("pixtral")["/v1/messages"], "max_tokens": 64}
    body["messages"] = [{"role": "user", "content": parts}]
    answer = container.http.post("/v1/messages", json=body).json()
    assert answer["content"][0]["text"] == images.IMAGES["answers"][0].format("green")

"""No request, whatever it holds, gets a 5xx, hangs or harms what is answered after it."""

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from predict import errors, limits
from predict.middleware import READ
from schemathesis import GenerationMode

from local.standins.corpus import load_dialogues
from scripts.serve import URL
from tests.container import hostile, running, test_images
from tests.container.hostile import CHAT, JSON, Case
from tests.container.running import Running

SECONDS = 16.0  # of each kind of request, for each model; the rest is for another time
LEAST = 300  # requests of each kind's; patience, where the machine is slow
PATIENCE_SECONDS = 60.0
CLIENTS = 3

MARKER = "marker-8b1f6c"


# --- what is sent ---


@pytest.fixture(scope="session")
def openapi() -> Any:
    """vLLM's own description of its routes, which the container does not show."""
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    document: Any = build_app(arguments, ("generate",)).openapi()
    document["paths"] = {path: document["paths"][path] for path in READ}
    return document


def fields(openapi: Any) -> dict[str, list[str]]:
    """Route → the names its requests have in vLLM."""
    schemas, found = openapi["components"]["schemas"], {}
    for path, methods in openapi["paths"].items():
        schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
        names = [
            name
            for reference in [schema, *schema.get("anyOf", [])]
            if "$ref" in reference
            for name in schemas[reference["$ref"].rpartition("/")[2]]["properties"]
        ]
        found[path] = sorted(set(names))
    return found


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(hostile.WRONG_VALUES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["type", "content", "role", "uuid"]), inner
        )
    ),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn, model: str) -> Case:
    """A valid request with some of what is in it replaced, taken away or added, or cut as bytes."""
    path, body = draw(st.sampled_from(sorted(hostile.rich(model).items())))
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = body
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and draw(st.booleans()):
                node = node[key]
                continue
            if draw(st.integers(0, 3)):
                node[key] = draw(anything)
            else:
                del node[key]
            break
    content = json.dumps(bounded(path, body)).encode()
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(content)))
        content = content[:cut] + draw(st.binary(max_size=4)) + content[cut + 1 :]
    return Case(f"{path} {content[:2000]!r}", path, content)


NEW_TOKENS = {"/v1/responses": "max_output_tokens", "/predict": "max_new_tokens"}


def bounded(path: str, body: Any) -> Any:
    """A request that asks for no more than a few tokens, if it is one at all: by chance it may ask
    for an answer as long as the context, which it then gets."""
    name = NEW_TOKENS.get(path, "max_tokens")
    if isinstance(body, dict) and "tokenize" not in path and "count" not in path:
        asked = body.get(name)
        if asked is None or (isinstance(asked, (int, float)) and asked > 20):
            return {**body, name: 2}
    return body


def drawn(strategy: st.SearchStrategy[Case], seed: int, most: int = 400) -> list[Case]:
    found: list[Case] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=most,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    return found


def described(openapi: Any, seed: int) -> list[Case]:
    """What schemathesis makes of vLLM's own description, valid and not."""
    schema = schemathesis.openapi.from_dict(openapi)
    found = []
    for path in sorted(READ):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = schema[path]["POST"].as_strategy(generation_mode=mode)
            found += drawn(strategy.map(partial(_of_schemathesis, path)), seed, 60)
    return found


def _of_schemathesis(path: str, case: Any) -> Case:
    return _plain(path, bounded(path, case.body))


def _plain(path: str, body: Any) -> Case:
    content = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    return Case(f"{path} {content[:2000]!r}", path, content)


# --- how it is judged ---


def fault(case: Case, response: httpx.Response) -> str | None:
    """What is wrong with an answer, if anything."""
    if response.status_code < 400:
        return None
    if response.status_code >= 500:
        return f"{response.status_code}: {response.text[:200]}"
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return f"no error of OpenAI's shape: {response.text[:200]}"
    if not error.keys() >= {"message", "type", "param", "code"}:
        return f"not the whole shape: {error}"
    if not isinstance(error["message"], str) or not error["message"].strip():
        return f"no message: {error}"
    if len(error["message"]) > errors.MOST or len(error["param"] or "") > errors.MOST:
        return f"a long message: {len(response.text)}"
    if error["code"] != response.status_code:
        return f"{response.status_code} is called {error['code']}"
    return None


def sent(case: Case, client: httpx.Client) -> httpx.Response:
    content: Any = case.content
    if case.chunked:
        content = (case.content[i : i + 5] for i in range(0, len(case.content), 5))
    return client.request(case.method, case.path, content=content, headers=case.headers)


def tried(requests: list[Case], seconds: float) -> tuple[int, list[str]]:
    """How many of the requests were sent in the time, and what was wrong with the answers."""
    waiting, faults, done = iter(requests), [], 0
    until, lock = time.monotonic() + seconds, threading.Lock()

    def work() -> None:
        nonlocal done
        with httpx.Client(base_url=URL, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            while time.monotonic() < until or done < LEAST:
                with lock:
                    case = next(waiting, None)
                if case is None:
                    return
                try:
                    wrong = fault(case, sent(case, client))
                except httpx.HTTPError as error:
                    wrong = repr(error)
                with lock:
                    done += 1
                    if wrong:
                        faults.append(f"{case.name}: {wrong}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: work(), range(CLIENTS)))
    return done, faults


def memory() -> dict[str, int]:
    """Resident KiB of vLLM's processes, by name."""
    found: dict[str, int] = {}
    for pid, _ in running.container_processes():
        status = Path(f"/proc/{pid}/status").read_text()
        name = re.search(r"^Name:\s*(.*)$", status, re.MULTILINE)
        size = re.search(r"^VmRSS:\s*(\d+)", status, re.MULTILINE)
        if name and size and "vllm" in name[1].lower():
            found[name[1]] = found.get(name[1], 0) + int(size[1])
    return found


@pytest.fixture
def unharmed(container: Running, chats: Any) -> Iterator[int]:
    """A seed; and that afterwards the engine answers to the letter, in the memory it had."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    assert tried(warming(container.card.name, seed), SECONDS / 2)[1] == []
    before = memory()
    yield seed
    for messages, answer in chats.values():
        body = {"messages": messages, "max_tokens": 200}
        response = container.http.post(CHAT, json=body)
        assert response.json()["choices"][0]["message"]["content"] == answer
    after = memory()
    assert after.keys() == before.keys()
    for name, size in before.items():
        assert after[name] <= size * 1.1, f"{name} had {size} KiB, has {after[name]}"


def warming(model: str, seed: int) -> list[Case]:
    """What makes vLLM load what it loads at its first request of a kind, and its allocator keep
    what it keeps."""
    rows = [_plain(path, body) for path, body in hostile.rich(model).items()]
    grammar = {"structured_outputs": {"regex": "a+"}}
    rows += [_plain(CHAT, {**hostile.valid(model)[CHAT], **grammar})]
    large = {"messages": [{"role": "user", "content": "x " * 400_000}]}
    trouble = random.Random(seed).sample(list(hostile.cases(model)), LEAST)
    return [*rows, *[_plain(CHAT, large)] * 6] * 4 + trouble


def test_requests_that_ask_for_trouble(container: Running, openapi: Any, unharmed: int) -> None:
    model = container.card.name
    fixed = list(hostile.cases(model))
    wrong = list(hostile.wrong_values(model, fields(openapi)))
    shuffled = random.Random(unharmed)
    shuffled.shuffle(fixed)
    shuffled.shuffle(wrong)
    done, faults = tried(fixed, SECONDS)
    assert faults == []
    assert done >= LEAST
    assert tried(wrong, SECONDS / 2)[1] == []


def test_random_requests(container: Running, openapi: Any, unharmed: int) -> None:
    requests = drawn(mutated(container.card.name), unharmed) + described(openapi, unharmed)
    random.Random(unharmed).shuffle(requests)
    done, faults = tried(requests, SECONDS / 2)
    assert faults == []
    assert done >= LEAST


# --- what is not for outsiders to say, and what nobody else may see ---


@pytest.mark.parametrize("path", sorted(READ))
def test_the_engine_s_own_fields_are_refused_by_name(container: Running, path: str) -> None:
    valid = hostile.valid(container.card.name)[path]
    for name in limits.REFUSED:
        response = container.http.post(path, json={**valid, name: "x"})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name
        assert name in response.json()["error"]["message"]


def test_a_body_that_is_too_long_is_a_413(container: Running) -> None:
    assert container.card.limits.body_bytes is not None
    body = b'{"prompt": "' + b"x" * container.card.limits.body_bytes
    for content in (body, (body[i : i + 65536] for i in range(0, len(body), 65536))):
        response = container.http.post("/predict", content=content)
        assert response.status_code == 413
        assert str(container.card.limits.body_bytes) in response.json()["error"]["message"]


def test_an_error_names_what_the_client_sent(container: Running) -> None:
    body = {"prompt": "hi", "max_new_tokens": 2, "repetition_penalty": 1, "min_new_tokens": -1}
    error = container.http.post("/predict", json=body).json()["error"]
    assert error["param"] == "min_new_tokens"
    many = [f"w{i}" for i in range(5)]
    error = container.http.post("/predict", json={"prompt": "hi", "stop_strings": many}).json()
    assert error["error"]["param"] == "stop_strings"


def marked(model: str) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Requests with the marker wherever a user's own may be: route, body, headers."""
    headers = {"Authorization": f"Api-Key {MARKER}", "X-Request-Id": MARKER, "Cookie": MARKER}
    said = {"role": "user", "content": MARKER}
    image = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:9/{MARKER}?k={MARKER}"}}
    data = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{MARKER}"}}
    arguments = json.dumps({"a": MARKER})
    call = {**hostile.CALL, "function": {"name": "f", "arguments": arguments}}
    tool = {"type": "function", "function": {"name": "f", "description": MARKER}}
    for path, body in hostile.valid(model).items():
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
    chat = hostile.valid(model)[CHAT]
    yield CHAT, {**chat, "messages": [*spoken, result], "tools": [tool]}, headers
    yield CHAT, {**chat, "messages": [*spoken, {**result, "tool_call_id": MARKER}]}, headers


def test_the_log_quotes_no_request(container: Running) -> None:
    for path, body, headers in marked(container.card.name):
        response = container.http.post(f"{path}?key={MARKER}", json=body, headers=headers)
        assert response.status_code < 500, response.text
    container.http.post(CHAT, content=f'{{"messages": {MARKER}', headers=JSON)
    container.http.get(f"/health?key={MARKER}")
    container.http.get("/v1/models", headers={"Authorization": f"Bearer {MARKER}"})
    time.sleep(1)  # for what the engine has to say
    log = container.log.read_text(errors="replace")
    assert "POST /v1/chat/completions" in log
    lines = [line for line in log.splitlines() if MARKER in line]
    assert lines == []


def test_an_error_shows_nothing_of_another_request(container: Running) -> None:
    """Errors of many requests at once: each has its own mark, and no other's."""
    model, marks = container.card.name, [f"mark-{i:04d}" for i in range(60)]

    def ask(mark: str) -> str:
        body = {**hostile.valid(model)[CHAT], "stop": [mark] * 9, "model": mark, "user": [mark]}
        if int(mark[5:]) % 2:
            body = {"model": mark, "messages": [{"role": "user", "content": mark}]}
        return container.http.post(CHAT, json=body).text

    with ThreadPoolExecutor(8) as pool:
        for mark, text in zip(marks, pool.map(ask, marks), strict=True):
            assert set(re.findall(r"mark-\d{4}", text)) <= {mark}


IMAGES = load_dialogues()["images"]


@pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)
def test_two_clients_with_the_same_uuid_get_each_their_own_colour(container: Running) -> None:
    for size in ((64, 64), (96, 64)):
        for colour in ("red", "blue", "red"):
            part = {**test_images.part(colour, size), "uuid": "the same"}
            got = test_images.ask(container, part)
            assert got == IMAGES["answers"][0].format(colour)
    url = test_images.part("green")["image_url"]["url"]
    for part in ({"image_url": url, "uuid": "the same"}, {"image_url": {"url": url}, "uuid": "b"}):
        assert test_images.ask(container, part) == IMAGES["answers"][0].format("green")
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
    body = {**hostile.valid("pixtral")["/v1/messages"], "max_tokens": 64}
    body["messages"] = [{"role": "user", "content": parts}]
    answer = container.http.post("/v1/messages", json=body).json()
    assert answer["content"][0]["text"] == IMAGES["answers"][0].format("green")

"""Bodies: what is read and judged is what vLLM gets."""

import asyncio
import copy
import gc
import json
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from predict import memory
from predict.legacy.parameters import CHAT, REFUSED
from predict.legacy.requests import LegacyRequest
from predict.requests import bodies, limits, middleware
from predict.requests.middleware import PREDICT, READ, decoded, encoded
from predict.requests.routes import CHAT_COMPLETIONS, COMPLETIONS
from predict.settings import variable

from tests.support.limits import AT_MOST
from tests.support.middleware import CHAT_PATH, Vllm, post

IMAGE = "data:image/png;base64," + "QUJD" * 30_000

LIMITS: Any = {"PREDICT_LIMIT_TEXT_BYTES": "70000", "PREDICT_LIMIT_BODY_BYTES": "900000"}


def with_part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "é?"}, part]}]}


def test_large_images_pass_byte_for_byte_and_are_no_text() -> None:
    image = {"url": IMAGE}
    body = json.dumps(with_part(type="image_url", image_url=image), ensure_ascii=False).encode()
    assert post("/predict", body, **LIMITS)[0].bodies == [body]
    defaults: Any = {"PREDICT_DEFAULTS_FOR_MESSAGES": "1", "PREDICT_TEMPERATURE": "0.5"}
    (got,) = post("/predict", body, **LIMITS, **defaults)[0].bodies
    assert json.loads(got) == {**json.loads(body), "temperature": 0.5}


def test_a_large_image_is_whole_in_a_request_that_is_rewritten() -> None:
    request = with_part(type="image_url", image_url={"url": IMAGE})
    marked = with_part(type="image_url", image_url={"url": IMAGE}, uuid="a")
    for body in (marked, {**request, "temperature": None}, {**request, "max_new_tokens": 5}):
        defaults: Any = {"PREDICT_DEFAULTS_FOR_MESSAGES": "1", "PREDICT_TEMPERATURE": "0.5"}
        vllm, _, _ = post("/predict", json.dumps(body).encode(), **LIMITS, **defaults)
        assert json.loads(vllm.bodies[0])["messages"] == request["messages"]


@pytest.mark.parametrize(
    "body",
    [
        with_part(type="text", text=IMAGE),
        {"messages": [{"role": "user", "content": IMAGE}]},
        {"prompt": IMAGE},
        {**with_part(type="image_url", image_url=IMAGE), "user": IMAGE},
    ],
)
def test_text_that_looks_like_an_image_is_text(body: Any) -> None:
    written = json.dumps(body).encode()
    status = post("/predict", written, **LIMITS)[1]
    assert status == 413
    got = post("/v1/chat/completions", written)[0].bodies[0]
    assert IMAGE in json.dumps(json.loads(got))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab$"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CHAT - set(REFUSED))), json_values), st.booleans())
def test_any_request_of_openai_s_names_comes_out_equal(request: Any, ascii_only: bool) -> None:
    body = json.dumps({**request, "messages": []}, ensure_ascii=ascii_only).encode()
    got, status, _ = post("/predict", body)
    assert got.bodies == [body] if status == 200 else status == 400


def spelled(value: Any, chance: Random) -> str:
    """JSON as nobody writes it: names that come before with another value, names and texts in
    escapes, white space, numbers in other forms."""
    space = chance.choice(("", "", " ", "\r\n\t"))
    if isinstance(value, dict):
        others = (None, -(10**30), ["b"], "data:" + "A" * 2990, {"role": "user", "content": "é"})
        before = [(name, chance.choice(others)) for name in value if chance.random() < 0.2]
        inner = [
            f"{spelled(name, chance)}:{spelled(held, chance)}"
            for name, held in [*before, *value.items()]
        ]
        return f"{space}{{{space}{','.join(inner)}{space}}}"
    if isinstance(value, list):
        return f"{space}[{space}{','.join(spelled(held, chance) for held in value)}]{space}"
    if type(value) is int:
        ends = ("", "", "", ".0", "E2", "e-1", "E+270", "0" * 20 if value else "")
        return f"{space}{'' if value else '-'}{value}{chance.choice(ends)}{space}"
    if isinstance(value, str) and len(value) < 20 and chance.random() < 0.3:
        return '"' + re.sub("(....)", r"\\u\1", value.encode("utf-16-be").hex()) + f'"{space}'
    return json.dumps(value, ensure_ascii=chance.random() < 0.5) + space


def raw(value: Any, chance: Random) -> bytes:
    return chance.choice((b"", b"", b"\xef\xbb\xbf")) + spelled(value, chance).encode()


CHANCES = st.integers(0, 2**32).map(Random)


@given(st.dictionaries(st.text("ab$"), json_values), CHANCES)
def test_bodies_are_read_and_written_without_a_change(request: Any, chance: Random) -> None:
    assert decoded(encoded(request)) == request
    assert decoded(json.dumps(request).encode()) == request
    body = raw(request, chance)
    # with the types, the signs of zeros and the order of names
    assert repr(decoded(body)) == repr(json.loads(body)), body


# Limits that the generated bodies lie around, and what they are made of: images, strings that look
# like one, and constraints that must not hide behind them.
SMALL: Any = {"PREDICT_LIMIT_TEXT_BYTES": "3000", "PREDICT_LIMIT_STRING_LENGTH": "40"}

URLS = st.sampled_from([0, 1, 30, 60, 2500, 2990, 3000, 65530, 65536, 70000]).map(
    lambda length: "data:" + "A" * length
)

PARTS = st.one_of(
    URLS.map(lambda url: {"type": "image_url", "image_url": {"url": url}}),
    URLS.map(lambda url: {"type": "image_url", "image_url": url, "text": "a"}),
    URLS.map(lambda url: {"type": "image", "source": {"type": "base64", "data": url}}),
    URLS.map(lambda url: {"type": "text", "text": url}),
)

MESSAGES = st.lists(PARTS, max_size=3).map(lambda parts: [{"role": "user", "content": parts}])

FIELDS = {
    "messages": MESSAGES,
    "input": MESSAGES,
    "system": MESSAGES | st.lists(PARTS, max_size=3),
    "prompt": URLS | st.just("hi"),
    "user": URLS | st.just("x"),
    "stop": URLS,
    "metadata": st.dictionaries(st.sampled_from("ab"), URLS, max_size=2),
    "structured_outputs": URLS.map(lambda url: {"regex": url}),
    "kv_transfer_params": st.none() | URLS,
}

ENTRIES = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: FIELDS[name].map(lambda value: (name, value))
)

# What a route needs to answer at all.
HI = [{"role": "user", "content": "hi"}]
NEEDED: dict[str, Any] = {
    "/v1/responses": {"input": HI},
    "/detokenize": {"tokens": [1]},
    COMPLETIONS: {"prompt": ""},
}


@pytest.mark.parametrize("path", sorted(READ | {PREDICT}))
def test_what_is_judged_is_what_vllm_gets(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may come twice, wherever: the last one counts, here and in vLLM."""
    chat = path in (CHAT_COMPLETIONS, PREDICT)
    check = limits.check
    judged: list[Any] = []
    as_they_came: list[bytes] = []
    rewritten: list[bytes] = []

    def judge(body: Any, *more: Any) -> bool:
        judged.append(copy.deepcopy(body))
        return check(body, *more)

    monkeypatch.setattr(limits, "check", judge)

    @examples(max_examples=30)
    @given(st.lists(ENTRIES, max_size=4), CHANCES)
    def asked(entries: Any, chance: Random) -> None:
        judged.clear()
        request = NEEDED.get(path, {"messages": HI}) | dict(entries)
        body = raw(request, chance)
        read = json.loads(body)
        vllm, status, _ = post(path, body, **SMALL)
        as_read = judged == [read]  # long texts, whose comparison is not to be explained
        if status != 200:
            assert (vllm.bodies, status in (400, 413)) == ([], True)
            assert as_read or not judged
            return
        (got,) = vllm.bodies
        assert as_read
        assert len(body) - sum(map(len, image_urls(read))) <= 3000
        assert len(read.get("stop") or "") <= 40
        assert read.get("kv_transfer_params") is None
        (as_they_came if got == body else rewritten).append(got)
        sent = json.loads(got)
        if chat and "prompt" in read:  # the legacy format
            sent = {"prompt": sent["messages"][-1]["content"]}
        for name in sent.keys() - {"messages", "input", "system"}:  # conversations are repaired
            assert sent[name] == read[name]

    asked()
    assert as_they_came


@pytest.mark.parametrize(("limit", "most", "_", "too_much"), AT_MOST, ids=str)
def test_what_is_too_much_reaches_vllm_by_no_route(
    limit: str, most: int, _: Any, too_much: dict[str, Any]
) -> None:
    for path in sorted(READ | {PREDICT}):
        given: Any = {variable(limit): str(most)}
        vllm, status, answer = post(path, json.dumps(too_much).encode(), **given)
        assert (vllm.bodies, status in (400, 413)) == ([], True)
        assert str(most - (limit == "vocabulary")) in answer["error"]["message"]


def image_urls(body: dict[str, Any]) -> list[str]:
    """The images of a request, each at its own place and once."""
    parts = [
        part
        for name in ("messages", "input", "system")
        for entry in body.get(name, ())
        for part in entry.get("content", [entry])
        if isinstance(part, dict)
    ]
    urls = [
        part["source"]["data"] if "source" in part else part["image_url"]
        for part in parts
        if part["type"] != "text"
    ]
    return [url["url"] if isinstance(url, dict) else url for url in urls]


@pytest.mark.parametrize("decoys", [1, 5])
def test_an_image_does_not_pay_for_a_string_elsewhere(decoys: int) -> None:
    part = {"type": "image_url", "image_url": "data:" + "A" * 2000}
    decoy = {"role": "u", "type": "a", "content": [part] * decoys}
    hidden = {"prompt": "hi", "user": "data:" + "x" * 70_000, "system": [decoy]}
    for path in ("/v1/completions", "/v1/responses", "/v1/messages"):
        vllm, status, _ = post(path, json.dumps(hidden).encode(), **SMALL)
        assert (vllm.bodies, status) == ([], 413)


def test_a_large_body_without_images_is_refused_before_it_is_parsed() -> None:
    for filler in (b'"data:",', b"{},", b'"x",'):
        body = b'{"a": [' + filler * 30_000 + b"{}"  # which is not JSON
        _, status, answer = post(CHAT_PATH, body, **SMALL)
        assert status == 413
        assert "beside its images" in answer["error"]["message"]


LARGE = json.dumps(with_part(type="image_url", image_url={"url": IMAGE * 3})).encode()


def test_a_large_body_that_gets_no_room_is_a_503_and_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With images or without."""
    monkeypatch.setattr(memory, "WAIT_SECONDS", 0.01)
    full = memory.RequestMemory(0)
    full.incoming.taken = 1
    monkeypatch.setattr(middleware, "RequestMemory", lambda limit, paced: full)
    vllm, status, error = post(CHAT_PATH, LARGE)
    assert (status, vllm.taken) == (503, 0)
    assert "take all memory for bodies and downloads; try again" in error["error"]["message"]


def test_a_large_body_that_does_not_come_gives_its_room_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "READ_SECONDS", 0.01)
    mine = memory.RequestMemory(1 << 30)
    monkeypatch.setattr(middleware, "RequestMemory", lambda limit, paced: mine)

    async def never(*_: Any) -> bytes:
        assert mine.taken == memory.BODY_COPIES * len(LARGE)
        return await asyncio.Future()

    monkeypatch.setattr(bodies, "read_body", never)
    _, status, error = post(CHAT_PATH, LARGE)
    assert (status, mine.taken) == (408, 0)
    assert "came too slowly" in error["error"]["message"]


def test_a_legacy_request_is_not_kept_while_vllm_answers_it() -> None:
    """Only as the body that vLLM has, which is all that images/memory.py counts."""
    kept: list[dict[str, Any]] = []

    class Looking(Vllm):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)
            kept.extend(each.chat for each in gc.get_objects() if isinstance(each, LegacyRequest))

    body = json.dumps({**json.loads(LARGE), "max_new_tokens": 5}).encode()
    vllm, status, _ = post("/predict", body, vllm=Looking())
    assert (status, len(kept)) == (200, 1)
    assert IMAGE in vllm.bodies[0].decode()
    assert IMAGE not in str(kept)


def test_text_takes_no_memory_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    full = memory.RequestMemory(1000)
    full.incoming.taken = 250
    monkeypatch.setattr(middleware, "RequestMemory", lambda limit, paced: full)
    body = json.dumps({"prompt": "e" * 300_000}).encode()
    assert post("/v1/completions", body)[1] == 200

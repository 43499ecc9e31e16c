"""Constraints on the output: ordinary ones work, and those too slow for the engine are rejected."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from predict.constraints.process import MOST_LATER

from local.standins.schemas import MOST_TOKENS, SCHEMAS
from tests.support import spare_time
from tests.support.container import Running, at_once
from tests.support.hostile.constraints import slow_later

CHAT = "/v1/chat/completions"
# For a neighbour's answer, which takes some 0.2 s alone and 1 s on a busy machine. A mask without a
# bound blocks the engine as long as it takes: 14 s and more for these.
PATIENCE_SECONDS = 10.0
LARGE = 100_000  # tokens of a vocabulary; above this a slow mask takes three times as long

Body = dict[str, Any]

# Too slow for any vocabulary and machine, and constraints that cannot be followed at all.
NESTED = "([a-z]{0,100}[a-m]{0,100}){0,100}z"
REGEXES = [
    NESTED,
    "([a-z]{0,1000}[a-m]{0,1000}[a-c]{0,1000}){0,1000}z",
    "(?<=a)b",
    r"(?=.*\d).{8,5000}",
]
# Ordinary ones that are slow, especially for large vocabularies.
SLOW_REGEXES = [
    r"^(\w+\s?)+$",
    r"^([A-Za-z]+[,.]?\s?)+$",
    r"^([a-z]+ ){0,50}[a-z]+\.$",
    r"^(\d{1,3},?)+$",
    r"^[\p{L} '-]+$",
]


def with_schema(schema: Any) -> Iterator[tuple[str, Body]]:
    """Every place for a schema: route and fields."""
    format = {"type": "json_schema", "name": "a", "schema": schema}
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    yield CHAT, {"response_format": named}
    yield CHAT, {"structured_outputs": {"json": schema}}
    yield CHAT, {"structured_outputs": {"json": json.dumps(schema)}}
    yield CHAT, {"tools": [tool], "tool_choice": "required"}
    yield "/v1/completions", {"response_format": named}
    yield "/v1/responses", {"text": {"format": format}}
    yield "/v1/messages", {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def refused() -> Iterator[tuple[str, Body]]:
    for regex in REGEXES:
        yield CHAT, {"structured_outputs": {"regex": regex}}
    for path in ("/predict", "/v1/completions", "/v1/responses"):
        yield path, {"structured_outputs": {"regex": NESTED}}
    evil = {"type": "string", "pattern": NESTED}
    yield from with_schema({"type": "object", "properties": {"a": evil}, "required": ["a"]})


def large() -> Iterator[Body]:
    """Allowed constraints that cost the engine more than most."""
    for regex in (
        "[a-z]{0,200}[a-z]{0,200}z",
        r"(- [^\n]{1,40}\n)*",
        "[a-z]*" * 16 + "z",
    ):
        yield {"structured_outputs": {"regex": regex}}
    lists: Any = {"type": "string"}
    for _ in range(3):
        lists = {"type": "array", "items": lists, "maxItems": 6000}
    texts = {f"p{i}": {"type": "string", "maxLength": 100 + i} for i in range(20)}
    choices = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "string"}]}
    for schema in (
        lists,
        {"type": "object", "properties": texts, "required": list(texts)},
        choices,
        {"type": "string", "format": "uri-template"},
        {"anyOf": [{"type": "string", "maxLength": length} for length in range(1, 33)]},
    ):
        yield {"structured_outputs": {"json": schema}}


def asked(container: Running, path: str, fields: Body) -> Any:
    words = [{"role": "user", "content": "hello"}]
    body = {"model": container.card.name, "max_tokens": 50, "temperature": 1, **fields}
    match path:
        case "/v1/completions":
            body["prompt"] = "hello"
        case "/v1/responses":
            body |= {"input": "hello", "max_output_tokens": body.pop("max_tokens")}
        case _:
            body["messages"] = words
    response = container.http.post(path, json=body)
    if response.status_code == 503 and spare_time.is_busy():
        pytest.skip("constraints are tried in time that the machine has to spare, and it has none")
    return response


GREEDY = {"temperature": 0}  # otherwise a space may by chance be a non-ASCII one


@pytest.fixture
def plain(chats: dict[str, tuple[list[Any], str]]) -> tuple[list[Any], str]:
    """A neighbour's request, and the exact answer."""
    return next(iter(chats.values()))


def neighbour(container: Running, plain: tuple[list[Any], str]) -> float:
    """The seconds that a neighbour's answer takes; checks that it is right."""
    began = time.monotonic()
    response = container.http.post(CHAT, json={"messages": plain[0], "max_tokens": 200})
    assert response.json()["choices"][0]["message"]["content"] == plain[1]
    return time.monotonic() - began


def test_what_takes_the_engine_too_long_is_a_400_that_names_it(
    container: Running, plain: tuple[list[Any], str]
) -> None:
    for path, fields in refused():
        if "tools" in fields and not container.card.features.tools:
            continue
        response = asked(container, path, fields)
        assert response.status_code == 400, (path, fields, response.text)
        error = response.json()["error"]
        assert error["param"] == next(iter(fields)), (path, fields, error)
        assert error["code"] == 400
    assert neighbour(container, plain) < PATIENCE_SECONDS


@pytest.mark.undisturbed
@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_neighbours_do_not_wait_for_what_is_allowed(
    container: Running, plain: tuple[list[Any], str]
) -> None:
    usual = neighbour(container, plain)
    with ThreadPoolExecutor(1) as pool:
        for fields in large():
            waiting = pool.submit(asked, container, CHAT, fields)
            time.sleep(0.2)
            took = neighbour(container, plain)
            print(f"{took:.2f} s beside {str(fields)[:70]}; alone {usual:.2f} s")
            assert took < max(PATIENCE_SECONDS, 10 * usual), fields
            assert waiting.result().status_code < 500


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_one_whose_masks_turn_slow_is_ended_and_no_other(
    container: Running, plain: tuple[list[Any], str]
) -> None:
    grammar: Body = {"structured_outputs": {"grammar": slow_later("a")}, "max_tokens": 400}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asked, container, CHAT, grammar)
        while not waiting.done():
            assert neighbour(container, plain) < PATIENCE_SECONDS
    answer = waiting.result()
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "structured_outputs"


@pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
def test_slow_constraints_start_beside_streams_that_never_end(
    container: Running, plain: tuple[list[Any], str]
) -> None:
    """Streams with a fast constraint, a slow one, and none."""
    done = threading.Event()
    slow: Body = {"structured_outputs": {"regex": SLOW_REGEXES[0]}}
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 100}
    streams: list[Body] = [{"structured_outputs": {"json": numbers}}, slow, {}]
    for fields in streams:  # tried first, as the streams may leave no idle time for trials
        assert asked(container, CHAT, {**fields, "max_tokens": 1}).status_code == 200

    def ask(fields: Body) -> None:
        while not done.is_set():
            assert asked(container, CHAT, {**fields, "max_tokens": 100}).status_code == 200

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(ask, fields) for fields in streams for _ in range(2)]
        try:
            for _ in range(2):
                answer = asked(container, CHAT, {**slow, "max_tokens": 3, "n": 4})
                assert answer.status_code == 200, answer.text
                assert len(answer.json()["choices"]) == 4
            neighbour(container, plain)
        finally:
            done.set()
        for one in asking:
            one.result()


def test_ordinary_expressions_and_schemas_hold(container: Running) -> None:
    for regex in (
        r"\d{4}-\d{2}-\d{2}",
        r"[a-z]{1,9}@[a-z]{1,9}\.(com|org)",
        r"\+\d{1,3} \d{3}-\d{4}",
        r"[0-9a-f]{4}(-[0-9a-f]{2}){2}",
        r"(foo|bar)(,(foo|bar)){0,3}",
        r"(\w+ )*\w+",
        r"(\w{1,5}\s){0,3}\w{1,5}",
        r"(?=.*\d)(?=.*[A-Z])[A-Za-z\d]{8}",
        r"((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}",
        r"\bfoo\b",
    ):
        answer = asked(container, CHAT, {"structured_outputs": {"regex": regex}, **GREEDY}).json()
        text = answer["choices"][0]["message"]["content"]
        assert re.fullmatch(regex, text, re.ASCII), (regex, text)
    for regex in SLOW_REGEXES:
        fields = {"structured_outputs": {"regex": regex}, "max_tokens": 8}
        answer = asked(container, CHAT, fields)
        # these take two thirds of the time allowed for a mask, and more on a slower machine
        slow = container.card.architecture.vocabulary > LARGE and "ms for a token" in answer.text
        assert answer.status_code == 200 or slow, (regex, answer.text)
    for constraint in (
        {"grammar": 'root ::= "yes" | "no"'},
        {"grammar": 'start: "yes" | "no"'},
        {"choice": ["yes", "no"]},
    ):
        answer = asked(container, CHAT, {"structured_outputs": constraint, **GREEDY}).json()
        assert answer["choices"][0]["message"]["content"] in ("yes", "no"), constraint
    schema = {
        "type": "object",
        "properties": {
            "day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
            "kind": {"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]},
            "price": {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d{1,4}\.?\d{0,2}$"},
        },
        "required": ["day", "kind", "price"],
        "additionalProperties": False,
    }
    answer = asked(container, CHAT, {"structured_outputs": {"json": schema}, **GREEDY}).json()
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), schema)


def test_output_ends_under_any_ordinary_schema(container: Running) -> None:
    """The schemas of the stand-in's exam, which holds answers as the server does."""

    def ask(schema: Any) -> Any:
        fields = {"structured_outputs": {"json": schema}, "max_tokens": MOST_TOKENS, **GREEDY}
        return asked(container, CHAT, fields).json()

    answers = at_once(ask, SCHEMAS.values(), most=MOST_LATER)  # so that none has to be retried
    for (name, schema), answer in zip(SCHEMAS.items(), answers, strict=True):
        (choice,) = answer["choices"]
        text = choice["message"]["content"]
        assert choice["finish_reason"] == "stop", (name, text)
        jsonschema.validate(json.loads(text), schema)

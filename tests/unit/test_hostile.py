"""The judge of the answers to hostile requests finds what is wrong with them."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.support import hostile
from tests.support.hostile import answers
from tests.support.hostile.answers import Answer
from tests.support.hostile.case import Case, valid

ERROR = {"message": "no", "type": "BadRequestError", "param": None, "code": 400}


def answer(status: int, body: Any, seconds: float = 0.0) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(Case("a case", "/", b""), status, text, seconds)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"choices": []}),
        (200, 'data: {"choices": [{"delta": {"content": "\\ndata: {\\"error\\":"}}]}\n\n'),
        (400, {"error": ERROR}),
        (404, {"error": {**ERROR, "code": 404}}),
    ],
)
def test_a_good_answer_is_not_a_fault(status: int, body: Any) -> None:
    assert answers.fault(answer(status, body)) is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (0, "ReadTimeout()", "0: ReadTimeout"),
        (500, {"error": {**ERROR, "code": 500}}, "500: "),
        (200, 'data: {"choices": []}\n\ndata: {"error": {"code": 400}}\n\n', "200, and then data:"),
        (200, 'event: error\ndata: {"type": "error"}\n\n', "200, and then event: error"),
        (200, "event: response.failed\ndata: {}\n\n", "200, and then event: response.failed"),
        (400, "no", "no error of OpenAI's shape"),
        (400, {"detail": "no"}, "no error of OpenAI's shape"),
        (400, {"error": {"message": "no"}}, "not the whole shape"),
        (400, {"error": {**ERROR, "message": " "}}, "no message"),
        (400, {"error": {**ERROR, "message": "x" * 10_000}}, "a long message"),
        (400, {"error": {**ERROR, "code": 500}}, "400 is called 500"),
    ],
)
def test_a_fault_is_said(status: int, body: Any, said: str) -> None:
    (found,) = answers.faults([answer(status, body)])
    assert found.startswith(f"a case: {said}")


def test_the_times_are_those_of_refusals() -> None:
    refused = [answer(400, "", seconds / 100) for seconds in range(1, 101)]
    times = answers.refusals([answer(200, "", 9.0), *refused])
    assert (times.count, times.median, times.p99, times.most) == (100, 0.51, 1.0, 1.0)


def test_each_route_gets_hundreds_and_those_that_stream_get_them_as_streams_too() -> None:
    cases = [case for case in hostile.cases("mistral-7b") if len(case.content) < 10_000]
    routes = Counter(case.path for case in cases)
    streams = Counter(case.path for case in cases if b'"stream": true}' in case.content)
    assert routes.keys() == valid("mistral-7b").keys()
    assert min(routes.values()) > 60
    assert streams.keys() == set(hostile.STREAMED)
    assert min(streams.values()) > 60

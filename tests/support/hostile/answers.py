"""Sends hostile requests, and finds what is wrong with the answers.

Promises: `fault` is the rule for every answer: no 5xx, a short error in OpenAI's format, an answer
that ends, and no stream that begins well and then has an error. The caller decides how long an
answer may take.
"""

import contextlib
import functools
import json
import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from predict.errors import MAX_LENGTH

from tests.support import other_work, spare_time
from tests.support.hostile.case import Case

PATIENCE_SECONDS = 60.0
SOON_SECONDS = 1.0  # maximum for a rejection on a quiet machine
CLIENTS = 4  # at a time
# in OpenAI's streams, in Anthropic's, in Responses'
ERROR_IN_STREAM = re.compile(r'^data: ?\{"error":|^event: ?error|^event: ?response\.failed', re.M)


@dataclass(frozen=True)
class Answer:
    """`status` 0: there was no answer, or it broke off, and `text` says how."""

    case: Case
    status: int
    text: str
    seconds: float


def client(url: str) -> HTTPConnection:
    """Takes a tenth of httpx's time per request."""
    return HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_SECONDS)


def asked(case: Case, client: HTTPConnection) -> Answer:
    content: Any = case.content
    if case.chunked:
        content = (case.content[i : i + 5] for i in range(0, len(case.content), 5))
    started = time.monotonic()
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # rejected before its end
            client.request(case.method, case.path, content, case.headers)
        response = client.getresponse()
        status, text = response.status, response.read().decode(errors="replace")
    except (HTTPException, OSError) as error:
        client.close()
        status, text = 0, repr(error)
    return Answer(case, status, text, time.monotonic() - started)


def sent(requests: Iterable[Case], url: str) -> list[Answer]:
    """An answer to each, with a few requests at a time. A slow rejection is requested again, alone,
    because it may have waited for other requests; and once more if other work occupied the machine.
    The fastest counts."""
    local = threading.local()
    clients: list[HTTPConnection] = []

    def ask(case: Case) -> Answer:
        if not hasattr(local, "client"):
            local.client = client(url)
            clients.append(local.client)
        return asked(case, local.client)

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(ask, requests))
    for each in clients:
        each.close()
    with contextlib.closing(client(url)) as alone:
        for i, answer in enumerate(found):
            if answer.status >= 400 and answer.seconds > SOON_SECONDS:
                again = other_work.tried_again(
                    functools.partial(asked, answer.case, alone),
                    lambda got: got.seconds <= SOON_SECONDS,
                )
                found[i] = min(answer, again, key=lambda each: each.seconds)
    return found


def fault(answer: Answer) -> str | None:
    """What is wrong with an answer, if anything."""
    if answer.status == 0 or answer.status >= 500:
        return f"{answer.status}: {answer.text[:200]}"
    if answer.status < 400:
        found = ERROR_IN_STREAM.search(answer.text)
        return f"{answer.status}, and then {answer.text[found.start() :][:200]}" if found else None
    try:
        error = json.loads(answer.text)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no error of OpenAI's shape: {answer.text[:200]}"
    if not error.keys() >= {"message", "type", "param", "code"}:
        return f"not the whole shape: {error}"
    if not isinstance(error["message"], str) or not error["message"].strip():
        return f"no message: {error}"
    if len(error["message"]) > MAX_LENGTH or len(error["param"] or "") > MAX_LENGTH:
        return f"a long message: {len(answer.text)}"
    if error["code"] != answer.status:
        return f"{answer.status} is called {error['code']}"
    return None


def faults(answers: Iterable[Answer]) -> list[str]:
    """What is wrong with each. A 503 is accepted if the machine has no idle time, in which
    constraints are tried."""
    found = [(answer, fault(answer)) for answer in answers]
    wrong = [(answer, text) for answer, text in found if text]
    if any(answer.status == 503 for answer, _ in wrong) and spare_time.is_busy():
        wrong = [(answer, text) for answer, text in wrong if answer.status != 503]
    return [f"{answer.case.name}: {text}" for answer, text in wrong]


@dataclass(frozen=True)
class Times:
    """Seconds that the rejections took: median, p99 and maximum."""

    count: int
    median: float
    p99: float
    most: float

    def __str__(self) -> str:
        figures = f"median {self.median * 1000:.0f} ms, p99 {self.p99:.2f} s, max {self.most:.2f} s"
        return f"{self.count} refused: {figures}"


def refusals(answers: Iterable[Answer]) -> Times:
    """The times of the answers that are rejections; there must be at least one."""
    seconds = sorted(answer.seconds for answer in answers if 400 <= answer.status < 500)
    middle, late = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    return Times(len(seconds), middle, late, seconds[-1])

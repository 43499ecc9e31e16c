"""What the worst accepted constraints of eight clients cost a neighbour (one text model).

Its median is bounded by the neighbour's own, measured before; attackers are a process of their own.
Beside other work on two cores that does not hold, so `make resilience` runs it and `make test` not.
"""

import json
import multiprocessing
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from local.truss import URL
from tests.support.container import Running
from tests.support.resilience import Report

CHAT = f"{URL}/v1/chat/completions"
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]
ATTACKERS = 8
COMPILERS = 32
SECONDS = 8.0  # of an attack
UNDER_WAY_SECONDS = 1.0  # until all of its clients have sent something
MEDIAN_TIMES, LONGEST_SECONDS = 3, 1.0

Body = dict[str, Any]
pytestmark = [
    pytest.mark.parametrize("container", ["mistral-7b"], indirect=True),
    pytest.mark.only_resilience,
]


def constrained(**constraint: Any) -> Body:
    return {"messages": QUESTION, "max_tokens": 200, "structured_outputs": constraint}


def definitions(count: int, mark: str) -> Body:
    """A schema of lists, each of which may hold any of them (ambiguous at every bracket)."""
    every = [{"$ref": f"#/$defs/{number}"} for number in range(count)]
    lists = {str(number): {"type": "array", "items": {"anyOf": every}} for number in range(count)}
    return {"$comment": mark, "$defs": lists, "$ref": "#/$defs/0"}


# A character of a JSON text, as a rule of its own: nothing to compile, and slow masks.
CHARACTER = r"""c ::= [^"\\\x00-\x1f] | "\\" e
e ::= ["\\/bfnrt] | "u" [0-9a-fA-F]{4}"""

# The n-th request of a client. Most are another constraint each time, so that no verdict is known.
ATTACKS: dict[str, Callable[[str], Body]] = {
    "overlapping repetitions": lambda mark: constrained(regex=mark + ".{0,40}" * 10),
    "behind a word": lambda mark: constrained(regex=f"a|b{mark}" + ".{0,25}" * 16),
    "as slow as is accepted": lambda _: {**constrained(regex=r"^(\w+\s?)+$"), "max_tokens": 40},
    "repetitions that overlap and are taken": lambda _: constrained(regex="[a-z]*" * 16 + "z"),
    "one token of a slow one": lambda mark: {
        **constrained(regex=rf"^(\w+\s?)+{mark}$"),
        "max_tokens": 1,
    },
    "ambiguous definitions": lambda mark: constrained(json=definitions(12, mark)),
    "an ambiguous grammar": lambda mark: constrained(
        grammar=f'root ::= s s s s s s s s "{mark}"\ns ::= "a" s | s "a" | ""'
    ),
    "a long regular expression": lambda mark: constrained(regex=mark + "a?" * 30_000),
    # Behind more characters than the trial steps over.
    "slow only behind 200 characters": lambda mark: {
        **constrained(grammar=f'root ::= "{mark}" [ab]{{200}} "x" c{{0,300}} "z"\n{CHARACTER}'),
        "max_tokens": 400,
    },
    "a repetition that is looked for": lambda _: {
        **constrained(regex="1{800}2{800}"),
        "repetition_detection": {"max_pattern_size": 128, "min_pattern_size": 1, "min_count": 2},
    },
}


def heavy_schema(mark: str) -> Body:
    """One that takes long to compile: others cannot wait for that."""
    fields = {f"{mark}{i}": {"type": "string", "maxLength": 40 + i} for i in range(15)}
    return constrained(json={"type": "object", "properties": fields, "required": [*fields]})


def http() -> httpx.Client:
    """Kept, for to make one takes the CPU longer than to ask."""
    return httpx.Client(timeout=60, trust_env=False)


def first_token_seconds(client: httpx.Client) -> float:
    body = {"messages": QUESTION, "max_tokens": 16, "temperature": 0, "stream": True}
    began = time.monotonic()
    with client.stream("POST", CHAT, json=body) as response:
        assert response.status_code == 200
        seconds = None
        for line in response.iter_lines():
            event = json.loads(line[6:]) if line.startswith("data: {") else {"choices": []}
            for choice in event["choices"]:
                if seconds is None and choice["delta"].get("content"):
                    seconds = time.monotonic() - began
    assert seconds is not None
    return seconds


def neighbour(seconds: float) -> list[float]:
    end, found = time.monotonic() + seconds, []
    with http() as client:
        while time.monotonic() < end:
            found.append(first_token_seconds(client))
            time.sleep(0.1)
    return found


def attack(clients: int, make: Callable[[str], Body], over: Any, statuses: Any) -> None:
    """Sends without a pause until it is over."""

    def client(number: int) -> None:
        count, asking = 0, http()
        while not over.is_set():
            count += 1
            try:
                body = make(f"x{number}y{count}")
                status = asking.post(CHAT, json=body).status_code
            except httpx.TimeoutException:
                status = 0
            seen.append(status)

    seen: list[int] = []
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses.put(seen)


@contextmanager
def attacked(clients: int, make: Callable[[str], Body]) -> Iterator[list[int]]:
    """Beside a process of so many clients; yields what will be the statuses of their answers."""
    processes = multiprocessing.get_context("fork")  # what makes the bodies is a function of here
    over, answered = processes.Event(), processes.Queue()
    process = processes.Process(target=attack, args=(clients, make, over, answered), daemon=True)
    process.start()
    statuses: list[int] = []
    try:
        time.sleep(UNDER_WAY_SECONDS)
        yield statuses
    finally:
        over.set()
        statuses += answered.get(timeout=90)
        process.join()


@pytest.fixture
def alone(container: Running) -> float:
    """The median without attackers, right before them."""
    neighbour(1)
    return statistics.median(neighbour(4))


def check(
    clients: int, name: str, make: Callable[[str], Body], alone: float, resilience: Report
) -> None:
    with attacked(clients, make) as statuses:
        during = neighbour(SECONDS)
    median, longest = statistics.median(during), max(during)
    seen = ", ".join(f"{count} of {status}" for status, count in Counter(statuses).items())
    print(f"{name}: {median / alone:.1f} times {alone:.3f} s, longest {longest:.3f} s; {seen}")
    assert set(statuses) <= {200, 400, 503}, statuses
    assert median < MEDIAN_TIMES * alone
    assert longest < LONGEST_SECONDS
    resilience.row(
        "Costly constraints",
        f"{clients} clients send {name} without a pause",
        f"the TTFT of a neighbour, {alone * 1000:.0f} ms alone: median {median * 1000:.0f} ms, "
        f"longest {longest * 1000:.0f} ms; answers by status: {seen}",
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_a_neighbour_waits_little_for_the_worst_that_is_accepted(
    container: Running, alone: float, resilience: Report, name: str
) -> None:
    check(ATTACKERS, name, ATTACKS[name], alone, resilience)


def test_a_neighbour_waits_little_while_schemas_are_compiled(
    container: Running, alone: float, resilience: Report
) -> None:
    check(COMPILERS, "another heavy schema each time", heavy_schema, alone, resilience)

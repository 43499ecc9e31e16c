"""A neighbour of an attack, which sends a short text and waits for the first token, and the
attack's clients, in a separate process that leaves the cores to the server and the neighbour: real
clients would be on other machines."""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from local.truss import URL

CHAT = f"{URL}/v1/chat/completions"
COMPLETIONS = f"{URL}/v1/completions"
MESSAGES = f"{URL}/v1/messages"
TOKENIZE = f"{URL}/tokenize"
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]
UNDER_WAY_SECONDS = 1.0  # until all clients of an attack have sent something
# An image behind a flood of others, or Pixtral's log probabilities of 32 prompts behind seven times
# as many, on a CPU without AVX512.
PATIENCE_SECONDS = 600

Body = dict[str, Any]
Pieces = list[bytes]  # of a body, not copied for each request


def http() -> httpx.Client:
    """Reused, because creating a client takes as much CPU as a request; without certificates, which
    no request here needs, and which take 20 ms to load."""
    return httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False, verify=False)


def first_token_seconds(client: httpx.Client, question: list[Body]) -> float:
    body = {"messages": question, "max_tokens": 16, "temperature": 0, "stream": True}
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


def neighbour(seconds: float, question: list[Body] = QUESTION) -> list[float]:
    """The seconds until each first token."""
    end, found = time.monotonic() + seconds, []
    with http() as client:
        while time.monotonic() < end:
            found.append(first_token_seconds(client, question))
            time.sleep(0.1)
    return found


def outcome(response: httpx.Response) -> int | str:
    """The status, or what is wrong with a 503."""
    if response.status_code == 503 and "retry-after" not in response.headers:
        return "503 without Retry-After"
    return response.status_code


def url_of(body: Body) -> str:
    """The route of a body, from its fields."""
    for name, url in {"return_token_strs": TOKENIZE, "output_config": MESSAGES}.items():
        if name in body:
            return url
    return CHAT if "messages" in body else COMPLETIONS


def send(client: httpx.Client, body: Body | Pieces) -> httpx.Response:
    if isinstance(body, dict):
        if "GET" in body:
            return client.get(f"{URL}{body['GET']}")
        return client.post(url_of(body), json=body)
    length = str(sum(map(len, body)))
    return client.post(CHAT, content=iter(body), headers={"content-length": length})


def attack(
    clients: int, make: Callable[[str], Body | Pieces], leave: bool, over: Any, statuses: Any
) -> None:
    """Sends without a pause until it is over; then waits for the last answers, or disconnects."""
    os.nice(10)

    def client(number: int) -> None:
        count, asking = 0, http()
        while not over.is_set():
            count += 1
            try:
                seen.append(outcome(send(asking, make(f"x{number}y{count}"))))
            except httpx.TimeoutException:
                seen.append("no answer")

    seen: list[int | str] = []
    threads = [
        threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    over.wait()
    end = time.monotonic() + PATIENCE_SECONDS
    while leave and 200 not in seen and time.monotonic() < end:  # on a slow machine
        time.sleep(0.1)
    for thread in threads if not leave else ():
        thread.join()
    statuses.put(list(seen))  # the end of this process also closes its threads' connections


@contextmanager
def attacked(
    clients: int, make: Callable[[str], Body | Pieces], leave: bool = False
) -> Iterator[list[int | str]]:
    """Runs a process with `clients` clients; yields a list for the statuses of their answers. The
    clients wait for the last answers, or `leave` when the block ends."""
    processes = multiprocessing.get_context("fork")  # `make` is a function of this process
    over, answered = processes.Event(), processes.Queue()
    work = (clients, make, leave, over, answered)
    process = processes.Process(target=attack, args=work, daemon=True)
    process.start()
    statuses: list[int | str] = []
    try:
        time.sleep(UNDER_WAY_SECONDS)
        yield statuses
    finally:
        over.set()
        statuses += answered.get(timeout=PATIENCE_SECONDS + 30)
        process.join()

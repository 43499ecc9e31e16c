"""A neighbour of an attack, who asks with a little text and waits for the first token, and the
clients of the attack, in a process of their own that leaves the cores to the server and to the
neighbour: they would be on other machines."""

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
TOKENIZE = f"{URL}/tokenize"
QUESTION = [{"role": "user", "content": "What is the Mistral wind?"}]
UNDER_WAY_SECONDS = 1.0  # until all clients of an attack have sent something
PATIENCE_SECONDS = 300  # an image behind a flood of others

Body = dict[str, Any]
Pieces = list[bytes]  # of a body, which are not copied for each request


def http() -> httpx.Client:
    """Kept, for to make one takes the CPU as long as to ask; and without certificates, which no
    request here needs, and which take 20 ms to load."""
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


def send(client: httpx.Client, body: Body | Pieces) -> httpx.Response:
    if isinstance(body, dict):
        url = CHAT if "messages" in body else COMPLETIONS
        return client.post(TOKENIZE if "return_token_strs" in body else url, json=body)
    length = str(sum(map(len, body)))
    return client.post(CHAT, content=iter(body), headers={"content-length": length})


def attack(
    clients: int, make: Callable[[str], Body | Pieces], leave: bool, over: Any, statuses: Any
) -> None:
    """Sends without a pause until it is over; then waits for the last answers, or leaves."""
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
    statuses.put(list(seen))  # and with this process end the connections of its threads


@contextmanager
def attacked(
    clients: int, make: Callable[[str], Body | Pieces], leave: bool = False
) -> Iterator[list[int | str]]:
    """Beside a process of so many clients; yields what will be the statuses of their answers. They
    wait for the last of these, or `leave` when the block ends."""
    processes = multiprocessing.get_context("fork")  # what makes the bodies is a function of here
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

"""The load of a soak test: clients of every kind at once, for a time, in a separate process.

Promises: every request with an exact answer is compared with it, except those of chats that are
under way at the end; a 503 is counted and retried; the clients include a slow reader and one that
disconnects. Prints one JSON object: by kind, how many were right, refused and wrong, with the first
wrong answers.

    python -m tests.support.soak MODEL SECONDS STREAMS
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx

from deploy import cards
from local.standins.corpus import load_dialogues
from local.truss import URL
from tests.support import hostile
from tests.support.hostile.answers import Answer, fault
from tests.support.hostile.case import Case
from tests.support.images import IMAGES, part
from tests.support.load import CHAT, known

MARK = "quoted-by-the-soak"  # in the users' text, schemas and bad input
CHATS = "chats"
LONG = 12  # characters; a text this long is in a log only if a request is quoted
# Maximum wait after a rejection: a free slot is requested at once. Random, to spread retries.
RETRY_SECONDS = (0.25, 0.75)
TOOLS = load_dialogues()["tools"]
SCHEMA = {
    "description": MARK,
    "type": "object",
    "properties": {"wind": {"const": "mistral"}, "strong": {"const": True}},
    "required": ["wind", "strong"],
    "additionalProperties": False,
}

Ask = Callable[[httpx.AsyncClient, int], Awaitable[str | None]]  # the error, if any


class RefusedError(Exception):
    """A 503 with Retry-After."""


def check(response: httpx.Response) -> None:
    if response.status_code == 503:
        assert response.headers.get("retry-after"), "a 503 without Retry-After"
        raise RefusedError


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json={"temperature": 0, "user": MARK, **body})
    check(response)
    assert response.status_code == 200, f"{response.status_code}: {response.text[:200]}"
    return response.json()


def compare(got: Any, expected: Any) -> str | None:
    return None if got == expected else f"{got!r:.200} instead of {expected!r:.200}"


def chat(model: str, pause: float = 0.0, leave: bool = False) -> Ask:
    """Streams; `pause`: seconds between two reads; `leave`: disconnects at the first token."""
    asked = known(model)

    async def ask(client: httpx.AsyncClient, number: int) -> str | None:
        messages, answer = asked[number % len(asked)]
        body = {"messages": messages, "stream": True, "temperature": 0, "user": MARK}
        text, done = "", False
        async with client.stream("POST", CHAT, json={**body, "max_tokens": 300}) as response:
            check(response)
            assert response.status_code == 200, response.status_code
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        return str(event)[:200]
                    for choice in event["choices"]:
                        text += choice["delta"].get("content") or ""
                    if leave and text:
                        return None if answer.startswith(text) else compare(text, answer)
                    await asyncio.sleep(pause)
                done = done or line == "data: [DONE]"
        return compare(text, answer) if done else f"no end: {text!r:.200}"

    return ask


async def legacy(client: httpx.AsyncClient, number: int) -> str | None:
    question, answer = "What is the Mistral wind?", LEGACY[0]
    got = await post(client, "/predict", prompt=question, max_new_tokens=200, do_sample=False)
    return compare(got["output"], answer)


LEGACY: list[str] = []


async def image(client: httpx.AsyncClient, number: int) -> str | None:
    colour = list(IMAGES["colours"])[number % len(IMAGES["colours"])]
    size = (random.randrange(16, 200), random.randrange(16, 200))  # so that it is in no cache
    content = [{"type": "text", "text": "What is this?"}, part(colour, size)]
    got = await post(client, CHAT, messages=[{"role": "user", "content": content}], max_tokens=64)
    return compare(got["choices"][0]["message"]["content"], IMAGES["answers"][0].format(colour))


async def tool(client: httpx.AsyncClient, number: int) -> str | None:
    messages = [{"role": "user", "content": TOOLS["question"]}]
    got = await post(client, CHAT, messages=messages, tools=TOOLS["definitions"], max_tokens=64)
    (call,) = got["choices"][0]["message"]["tool_calls"] or [None]
    arguments = json.loads(call["function"]["arguments"]) if call else None
    return compare(arguments, TOOLS["call"]["arguments"])


async def schema(client: httpx.AsyncClient, number: int) -> str | None:
    messages = [{"role": "user", "content": "What is the Mistral wind?"}]
    kept = {"type": "json_schema", "json_schema": {"name": "wind", "schema": SCHEMA}}
    got = await post(client, CHAT, messages=messages, response_format=kept, max_tokens=64)
    answer = json.loads(got["choices"][0]["message"]["content"])
    return compare(answer, {"wind": "mistral", "strong": True})


def bad_input(model: str) -> Ask:
    """The hostile requests that are small and quickly answered, in turn."""
    small = [case for case in hostile.cases(model) if len(case.content) < 20_000]
    turn: Iterator[Case] = itertools.cycle(small)

    async def ask(client: httpx.AsyncClient, number: int) -> str | None:
        if number % 5 == 0:
            response = await client.post(CHAT, json={"messages": MARK, MARK: MARK, "tools": MARK})
            check(response)
            return None if response.status_code == 400 else f"{response.status_code} to {MARK}"
        case = next(turn)
        response = await client.request(
            case.method, case.path, content=case.content, headers=case.headers
        )
        check(response)
        wrong = fault(Answer(case, response.status_code, response.text, 0.0))
        return f"{case.name}: {wrong}" if wrong else None

    return ask


def sent(model: str) -> list[str]:
    """Texts of the requests and their answers: no log line may contain one."""
    texts = [MARK, TOOLS["question"], str(TOOLS["call"]["arguments"])]
    for messages, answer in known(model):
        texts += [answer, *(message["content"] for message in messages)]
    return [text for text in texts if isinstance(text, str) and len(text) >= LONG]


def clients(model: str, streams: int) -> dict[str, tuple[int, Ask]]:
    """Kind → the number of clients, and the request that each repeats."""
    kinds: dict[str, tuple[int, Ask]] = {
        CHATS: (streams, chat(model)),
        "slow readers": (8, chat(model, pause=0.1)),
        "clients that leave": (8, chat(model, leave=True)),
        "legacy requests": (4, legacy),
        "schemas": (4, schema),
        "bad input": (4, bad_input(model)),
    }
    features = cards.load(model).features
    if features.tools:
        kinds["tools"] = (4, tool)
    if features.images:
        kinds["images"] = (4, image)
    return kinds


async def load(model: str, seconds: float, streams: int) -> dict[str, Any]:
    LEGACY[:] = [
        answer
        for messages, answer in known(model)
        if messages == [{"role": "user", "content": "What is the Mistral wind?"}]
    ]
    kinds = clients(model, streams)
    counts = {kind: Counter[str]() for kind in kinds}
    end = time.monotonic() + seconds
    wrong: list[str] = []
    refused: deque[asyncio.Future[None]] = deque()  # rejected clients, in order

    async def turn() -> None:
        """Waits until a request has ended, on a machine of any speed."""
        refused.append(ended := asyncio.get_running_loop().create_future())
        await asyncio.wait([ended], timeout=random.uniform(*RETRY_SECONDS))
        if not ended.done():
            refused.remove(ended)

    async def client(kind: str, ask: Ask, number: int, http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            try:
                fault = await ask(http, number)
            except RefusedError:
                counts[kind]["refused"] += 1
                await turn()
                continue
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            counts[kind]["wrong" if fault else "right"] += 1
            if fault:
                wrong.append(f"{kind}: {fault}")
            if refused:
                refused.popleft().set_result(None)
            number += 1

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=URL, timeout=120, limits=limits, trust_env=False) as http:
        tasks = {
            kind: [asyncio.create_task(client(kind, ask, number, http)) for number in range(count)]
            for kind, (count, ask) in kinds.items()
        }
        await asyncio.sleep(seconds)
        for task in tasks[CHATS]:  # the others' last requests would wait for theirs
            task.cancel()
        for ended in await asyncio.gather(*tasks.pop(CHATS), return_exceptions=True):
            if isinstance(ended, Exception):
                wrong.append(f"chats: {ended!r}")
        await asyncio.gather(*itertools.chain(*tasks.values()))
    return {"counts": counts, "wrong": wrong[:10]}


if __name__ == "__main__":
    os.nice(10)  # these clients would be on other machines
    print(json.dumps(asyncio.run(load(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))

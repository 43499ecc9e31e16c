"""Checks that a deployment answers as its users expect.

Promises: each check sends one request or a few, of a handful of tokens, and always has a result,
even if it fails. It asks the server for its models, and skips what they cannot do. Refuses, with a
`BasetenError`, a deployment that cannot be checked: a missing or rejected key, an unknown model, an
address that does not answer.
"""

import base64
import functools
import json
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console

from deploy import baseten, cards
from deploy.baseten import BasetenError

if TYPE_CHECKING:
    from openai import OpenAI

QUESTION = "What is the Mistral wind?"
# Baseten's own timeout; the first request may wait for a replica to start.
# https://docs.baseten.co/deployment/autoscaling/request-lifecycle
TIMEOUT = 1200.0
CONNECT_TIMEOUT = 15.0
STREAMS = 5  # at least one must arrive in several pieces
COLOUR = (225, 30, 30)  # red, which the answer must name


NO_KEY = "none-needed"  # sent to a container outside Baseten


class CheckError(AssertionError):
    """What was expected and what came instead."""


@dataclass(frozen=True)
class Target:
    """A deployment. `predict` is its predict route, `openai` the base URL for OpenAI's client."""

    predict: str
    openai: str
    key: str


@dataclass(frozen=True)
class Passed:
    """What a check saw; `first_token` is in seconds, from the request to the first text."""

    detail: str
    first_token: float | None = None


@dataclass(frozen=True)
class Row:
    name: str
    passed: bool
    detail: str
    seconds: float
    first_token: float | None


def target(model_id: str, environment: str, base_url: str | None, key: Callable[[], str]) -> Target:
    """Where the routes are: a model on Baseten; the same at `base_url` in place of Baseten's own
    address; or, without an id, a container outside Baseten, which needs no key."""
    if not model_id and base_url:
        url = baseten.checked_address(base_url).removesuffix("/v1")
        return Target(f"{url}/predict", f"{url}/v1", NO_KEY)
    baseten.checked_id("MODEL_ID", model_id)
    baseten.checked_id("ENVIRONMENT", environment)
    host = baseten.checked_address(base_url or f"https://model-{model_id}.api.baseten.co")
    url = f"{host}/environments/{environment}"
    return Target(f"{url}/predict", f"{url}/sync/v1", key())


def expect(holds: object, what: str) -> None:
    if not holds:
        raise CheckError(what)


class Checks:
    """The checks; each is a method that returns `Passed` or raises."""

    def __init__(self, target: Target, timeout: float) -> None:
        self.target, self.timeout = target, timeout
        self.http = httpx.Client(
            headers={"Authorization": f"Api-Key {target.key}"},
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
        )

    @functools.cached_property
    def openai(self) -> "OpenAI":
        from openai import OpenAI  # two thirds of the time this command spends on imports

        return OpenAI(
            api_key=self.target.key,
            base_url=self.target.openai,
            timeout=self.timeout,
            max_retries=0,
        )

    def models(self) -> list[dict[str, Any]]:
        """The models that the server lists; `BasetenError` if it lists none."""
        url = f"{self.target.openai}/models"
        try:
            response = self.http.get(url)
        except httpx.TransportError as error:
            raise baseten.unreachable(url, error) from error
        if response.status_code in (401, 403) and self.target.key == NO_KEY:
            raise BasetenError(f"{url} wants a key; say which model it is with MODEL_ID=")
        if response.status_code != 200:
            raise baseten.refusal(response, url)
        try:
            listed = [model for model in response.json()["data"] if model["id"]]
        except (ValueError, KeyError, TypeError):
            listed = []
        if not listed:
            raise BasetenError(f"{url} lists no model; is it the address of a deployment?")
        return listed

    def metrics(self) -> str:
        """The text of /metrics; empty if it is not available."""
        response = self.http.get(f"{self.target.openai.removesuffix('/v1')}/metrics")
        return response.text if response.status_code == 200 else ""

    def adapter(self, name: str) -> Passed:
        """That the adapter answers under its name, on both routes."""
        passed = self.chat(name)
        answer = self._predict({"prompt": QUESTION, "max_new_tokens": 32, "model": name})
        expect(answer.get("output"), f"no text in output: {_short(answer)}")
        return passed

    def wrong_name(self, adapters: list[str]) -> Passed:
        body = {"model": "no-such-model", "messages": [{"role": "user", "content": QUESTION}]}
        response = self.http.post(f"{self.target.openai}/chat/completions", json=body)
        expect(response.status_code == 404, f"status {response.status_code}, expected 404")
        message = baseten.message(response.text)
        expect(all(name in message for name in adapters), f"not all names are in {message!r}")
        return Passed(message)

    def chat(self, model: str) -> Passed:
        response = self.openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=32
        )
        text = response.choices[0].message.content
        expect(text, "the answer has no text")
        expect(response.usage and response.usage.completion_tokens <= 32, "over max_tokens")
        return Passed(f"{text}")

    def stream(self, model: str) -> Passed:
        def ask() -> tuple[float | None, list[str]]:
            started = time.monotonic()
            first, pieces, reason = None, [], None
            stream = self.openai.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=32,
                stream=True,
            )
            for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        first = first or time.monotonic() - started
                        pieces.append(choice.delta.content)
                    reason = choice.finish_reason or reason
            expect(reason in ("stop", "length"), f"finish_reason is {reason!r}")
            return first, pieces

        return _streamed(ask)

    def image(self, model: str) -> Passed:
        url = f"data:image/png;base64,{base64.b64encode(png(96, 64, COLOUR)).decode()}"
        response = self.openai.chat.completions.create(
            model=model,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What colour is this image?"},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                }
            ],
            max_tokens=32,
            temperature=0,
        )
        text = response.choices[0].message.content or ""
        expect("red" in text.lower(), f"a red picture was described as {text!r}")
        return Passed(text)

    def prompt(self) -> Passed:
        answer = self._predict({"prompt": QUESTION, "max_new_tokens": 32})
        text = answer.get("output")
        expect(text and isinstance(text, str), f"no text in output: {_short(answer)}")
        return Passed(answer["output"])

    def max_new_tokens(self) -> Passed:
        answer = self._predict({"prompt": QUESTION, "max_new_tokens": 4})
        tokens = answer["usage"]["completion_tokens"]
        expect(tokens == 4, f"{tokens} tokens, expected 4")
        expect(answer["finish_reason"] == "length", f"ended by {answer['finish_reason']!r}")
        return Passed("4 tokens")

    def text_stream(self) -> Passed:
        body = {"prompt": QUESTION, "max_new_tokens": 32, "stream": True}

        def ask() -> tuple[float | None, list[str]]:
            started = time.monotonic()
            first, pieces = None, []
            with self.http.stream("POST", self.target.predict, json=body) as response:
                kind = response.headers.get("content-type", "")
                expect(response.status_code == 200, f"status {response.status_code}")
                expect(kind.startswith("text/plain"), f"content-type {kind!r}, expected text/plain")
                for piece in response.iter_text():
                    first = first or time.monotonic() - started
                    pieces.append(piece)
            expect(not pieces[0].startswith("data:"), "events, expected plain text")
            return first, pieces

        return _streamed(ask)

    def error_shape(self) -> Passed:
        response = self.http.post(self.target.predict, json={"prompt": "x", "max_new_token": 4})
        expect(response.status_code == 400, f"status {response.status_code}, expected 400")
        error = response.json().get("error")
        shape = {"message", "type", "param", "code"}
        right = isinstance(error, dict) and shape <= error.keys()
        expect(right, f"expected error with {sorted(shape)}, got {_short(response.json())}")
        expect("max_new_tokens" in error["message"], f"no hint in {error['message']!r}")
        return Passed(error["message"])

    def _predict(self, body: dict[str, Any]) -> dict[str, Any]:
        response = self.http.post(self.target.predict, json=body)
        expect(
            response.status_code == 200,
            f"status {response.status_code}: {baseten.message(response.text)}",
        )
        answer: dict[str, Any] = response.json()
        return answer


def _streamed(ask: Callable[[], tuple[float | None, list[str]]]) -> Passed:
    """`ask` returns the seconds to the first piece, and the pieces. A single stream that arrives in
    one piece proves nothing: on a busy server tokens pile up. A proxy that buffers does it to all
    streams."""
    for _ in range(STREAMS):
        first, pieces = ask()
        if len(pieces) > 1:
            return Passed(f"{len(pieces)} pieces", first)
    raise CheckError(
        f"each of {STREAMS} streams came in one piece: what is in between buffers them"
    )


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """An image of one colour, without an image library: a PNG is three chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits each of R, G and B
    rows = (b"\0" + bytes(colour) * width) * height
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _short(content: object) -> str:
    return json.dumps(content)[:200]


def run(checks: Checks, console: Console) -> tuple[list[Row], list[dict[str, Any]]]:
    """Runs all checks that apply to the model, and shows the current one → results, and the models
    that the server lists."""
    started = time.monotonic()
    with console.status("models list; a replica may have to start first"):
        listed = checks.models()
        seconds = time.monotonic() - started
        _ = checks.openai  # import it now, so that the first check's time does not include it
    names = [str(model["id"]) for model in listed]
    rows = [Row("models list", True, ", ".join(names), seconds, None)]
    model = names[0]
    card = next((card for card in cards.load_all() if card.name == model), None)
    adapters = [str(one["id"]) for one in listed if one.get("parent")]
    plan: list[tuple[str, Callable[[], Passed]]] = [
        ("chat", lambda: checks.chat(model)),
        ("stream", lambda: checks.stream(model)),
    ]
    if card and card.features.images:
        plan.append(("image", lambda: checks.image(model)))
    plan += [
        ("prompt", checks.prompt),
        ("max_new_tokens", checks.max_new_tokens),
        ("text stream", checks.text_stream),
        ("error's shape", checks.error_shape),
    ]
    plan += [(f"adapter {name}", functools.partial(checks.adapter, name)) for name in adapters]
    if adapters:
        plan.append(("wrong name", lambda: checks.wrong_name(adapters)))
    for name, check in plan:
        with console.status(name):
            rows.append(row(name, check))
    return rows, listed


def row(name: str, check: Callable[[], Passed]) -> Row:
    """Runs one check. Any error is its result, so that the next checks still run."""
    started = time.monotonic()
    try:
        seen = check()
    except Exception as error:
        return Row(name, False, _reason(error), time.monotonic() - started, None)
    return Row(name, True, seen.detail, time.monotonic() - started, seen.first_token)


def _reason(error: Exception) -> str:
    import openai

    match error:
        case CheckError():
            return str(error)
        case openai.APIStatusError():
            return f"status {error.status_code}: {baseten.message(error.response.text)}"
        case _:
            return f"{type(error).__name__}: {error}"

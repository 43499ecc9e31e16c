"""Streams of chat completions as in Mistral's API: a tool call arrives whole, in one event.

OpenAI's API streams the arguments of a call piece by piece, and so does vLLM. Mistral's clients
require a name in every piece, or take each piece for a separate call.

Promises: a `send` for requests of Mistral's clients with tools. It joins the pieces of a call into
one event, sent when the call is complete; every other event passes unchanged. Streams of other
clients do not come through here.
"""

from typing import Any

import msgspec

from predict.asgi import Message, Scope, Send, header
from predict.errors.responder import is_event_stream
from predict.requests.fields import MISTRAL

PIECE = b'"tool_calls":['


def asks_as_mistral(scope: Scope, body: dict[str, Any]) -> bool:
    """Whether a request comes from a client of Mistral's API."""
    return b"mistral" in header(scope, b"user-agent").lower() or bool(MISTRAL.keys() & body.keys())


class WholeCalls:
    """A `send` that joins the pieces of a call."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.stream = False
        self.rest = b""  # an event that has not arrived whole
        # For each choice: its calls by index until they are complete, and the event they began in.
        self.calls: dict[int, dict[int, dict[str, Any]]] = {}
        self.events: dict[int, dict[str, Any]] = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.stream = message["status"] == 200 and is_event_stream(message["headers"])
        if not self.stream or message["type"] != "http.response.body":
            await self.send(message)
            return
        *events, self.rest = (self.rest + message.get("body", b"")).split(b"\n\n")
        body = b"".join(self._passed(event) for event in events)
        if not message.get("more_body", False):
            body += self._all_complete() + self.rest
        if body or not message.get("more_body", False):
            await self.send({**message, "body": body})

    def _passed(self, event: bytes) -> bytes:
        if not event.startswith(b"data: {") or PIECE not in event:
            return self._before(event) + event + b"\n\n"
        got = msgspec.json.decode(event[6:])
        choice = got["choices"][0]  # vLLM sends one per event
        for piece in choice["delta"].pop("tool_calls"):
            self._join(piece, got)
        ends = choice.get("finish_reason") is not None
        before = self._complete(choice["index"]) if ends else b""
        return before + _event(got) if ends or choice["delta"].get("content") else b""

    def _join(self, piece: dict[str, Any], got: dict[str, Any]) -> None:
        choice = got["choices"][0]
        calls = self.calls.setdefault(choice["index"], {})
        known = calls.get(piece["index"])
        if known is None:
            if not calls:
                empty = {**choice, "delta": {}, "finish_reason": None}
                self.events[choice["index"]] = {**got, "choices": [empty]}
            calls[piece["index"]] = piece
            piece.setdefault("function", {}).setdefault("arguments", "")
            return
        function = piece.get("function") or {}
        known["function"]["arguments"] += function.get("arguments") or ""
        for name in ("id", "type"):
            known.setdefault(name, piece.get(name))

    def _before(self, event: bytes) -> bytes:
        """What must be sent before an event without calls."""
        if not self.calls or b'"finish_reason":null' in event:
            return b""
        if event.startswith(b"data: {") and b'"finish_reason":' in event:
            return self._complete(msgspec.json.decode(event[6:])["choices"][0]["index"])
        return self._all_complete()

    def _all_complete(self) -> bytes:
        return b"".join([self._complete(index) for index in sorted(self.calls)])

    def _complete(self, index: int) -> bytes:
        """An event with the calls of a choice so far."""
        calls = self.calls.pop(index, None)
        if calls is None:
            return b""
        event = self.events[index]
        choice = {**event["choices"][0], "delta": {"tool_calls": list(calls.values())}}
        return _event({**event, "choices": [choice]})


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"

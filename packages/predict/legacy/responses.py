"""vLLM's chat answers → legacy answers: `{"output": …}`, or a stream of plain text.

Promises: anything but a success passes unchanged. A text stream carries each piece of text as vLLM
sends it, in whole characters. An error of vLLM's before the first text is a JSON error with its
status; after it, the response gets no end, so that the server breaks the connection and the client
notices.
"""

from typing import Any

import msgspec

from predict.asgi import Message, Send, respond, without
from predict.errors import error_body
from predict.errors.reading import error_in_event
from predict.legacy.requests import LegacyRequest


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: msgspec.Raw


class _Delta(msgspec.Struct):
    content: str | None = None


class _StreamedChoice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_StreamedChoice] = []
    error: Any = None


ENDED = error_body("the server ended the answer before it began", "InternalServerError", None, 500)

_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def answer(body: bytes, asked: LegacyRequest) -> bytes:
    """A chat completion → `{"output", "finish_reason", "usage"}`, with lists if the client asked
    for several answers, and `tool_calls` and `logprobs` if it asked for those."""
    got = _decode_answer(body)
    choices = got.choices[: asked.answers]
    fields: dict[str, list[Any]] = {
        "output": [asked.before + text(choice.message.content or "", asked) for choice in choices],
        "finish_reason": [choice.finish_reason for choice in choices],
    }
    if any(choice.message.tool_calls for choice in choices):
        fields["tool_calls"] = [choice.message.tool_calls for choice in choices]
    if asked.chat.get("logprobs"):
        fields["logprobs"] = [choice.logprobs for choice in choices]
    several = asked.answers > 1
    shown = {name: values if several else values[0] for name, values in fields.items()}
    return msgspec.json.encode({**shown, "usage": got.usage})


def text(generated: str, asked: LegacyRequest) -> str:
    """The generated text, from its start. Sentencepiece tokenizers mark the start of a word with a
    space; vLLM keeps it on the first word of an answer, transformers drops it. (Tekken, which is
    Pixtral's, begins no answer with one.)"""
    return generated[1:] if generated.startswith(" ") and not asked.keep_space else generated


class JSONResponder:
    """A `send` that turns a chat completion into the legacy answer."""

    def __init__(self, send: Send, asked: LegacyRequest) -> None:
        self.send = send
        self.asked = asked
        self.start: Message = {}
        self.chunks: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            if message["status"] != 200:
                await self.send(message)
        elif self.start["status"] != 200:
            await self.send(message)
        else:
            self.chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                body = answer(b"".join(self.chunks), self.asked)
                await respond(self.send, 200, body, self.start["headers"])


class TextStreamResponder:
    """A `send` that turns vLLM's stream of server-sent events into a stream of plain text."""

    def __init__(self, send: Send, asked: LegacyRequest) -> None:
        self.send = send
        self.asked = asked
        self.start: Message = {}
        self.rest = b""  # an event that has not arrived whole
        # "waiting" for the first text, then "sending", "done" or "failed"; or "passing" what is not
        # a stream
        self.state = "waiting"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            if message["status"] != 200:
                self.state = "passing"
        if self.state == "passing":
            await self.send(message)
        elif message["type"] == "http.response.body":
            *events, self.rest = (self.rest + message.get("body", b"")).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: "):
                    await self._event(event)
            if not message.get("more_body", False):
                await self._end()

    async def _event(self, sent: bytes) -> None:
        if self.state in ("done", "failed"):
            return
        data = sent[6:]
        if data == b"[DONE]":
            await self._begin()
            self.state = "done"
            return
        event = _decode_event(data)
        if event.error is not None:
            await self._fail(*error_in_event(sent))
        elif event.choices:
            (choice,) = event.choices
            if content := choice.delta.content:
                if self.state == "waiting":
                    content = text(content, self.asked)
                    await self._begin()
                    self.state = "sending"
                if content:
                    await self._text(content)
            if choice.finish_reason == "abort":  # by the server, in the middle of the answer
                await self._fail(500, ENDED)

    async def _begin(self) -> None:
        if self.state == "waiting":
            kept = without(self.start["headers"], (b"content-type",))
            kind = (b"content-type", b"text/plain; charset=utf-8")
            await self.send({**self.start, "headers": [*kept, kind]})
            if self.asked.before:
                await self._text(self.asked.before)

    async def _text(self, content: str) -> None:
        body = content.encode(errors="replace")
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end(self) -> None:
        if self.state == "done":
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._fail(500, ENDED)

    async def _fail(self, status: int, body: bytes) -> None:
        """Sends an error with its status if nothing was sent yet; otherwise the response never
        ends."""
        if self.state == "waiting":
            await respond(self.send, status, body)
        self.state = "failed"

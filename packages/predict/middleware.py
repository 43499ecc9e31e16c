"""The ASGI class that `vllm serve --middleware predict.middleware.Predict` puts before vLLM.

Promises: POST /predict is /v1/chat/completions, and that route speaks the older request shapes too
(dialects.py). An OpenAI-shaped request reaches vLLM byte for byte, but for defaults its model's
settings add, and its response passes untouched. Of its body only the names of the top level are
read. Refuses, with a 400 in OpenAI's error shape, a name nobody knows.
"""

import json
import os
from typing import Any

import msgspec

from predict import dialects, settings
from predict.answers import TextStream, WholeAnswer
from predict.asgi import (
    App,
    Receive,
    Scope,
    Send,
    as_json,
    ask,
    error_body,
    read_chunks,
    replay,
    respond,
    to_path,
    with_length,
)
from predict.dialects import Older, RequestError

PREDICT = "/predict"
CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

# What of a chat request decides its prompt, as /tokenize takes it.
PROMPT = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
)
WORD_START = "▁"  # sentencepiece's mark, which /detokenize leaves in

Fields = dict[str, msgspec.Raw]  # the names of a body's top level, with their values as JSON

_decode_fields = msgspec.json.Decoder(Fields).decode


class Predict:
    def __init__(self, app: App) -> None:
        self.app = app
        self.settings = settings.read(os.environ)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PREDICT:
            scope = to_path(scope, CHAT_COMPLETIONS)
        if (
            scope["type"] != "http"
            or scope["path"] not in (CHAT_COMPLETIONS, COMPLETIONS)
            or scope["method"] != "POST"
        ):
            await self.app(scope, receive, send)
            return
        scope = as_json(scope)  # curl calls it a form unless told otherwise, which vLLM refuses
        chunks = await read_chunks(receive)
        if chunks is None:
            return  # the client left
        try:
            await self._read(scope, chunks, receive, send)
        except RequestError as error:
            body = error_body(str(error), "BadRequestError", error.param, 400)
            await respond(send, 400, body)
        except VllmError as error:
            await respond(send, error.status, error.body)

    async def _read(self, scope: Scope, chunks: list[bytes], receive: Receive, send: Send) -> None:
        body = b"".join(chunks)  # vLLM, which gets it in one piece, need not do so any more
        fields = read_fields(body)
        handed_on = [body]
        if fields is not None:
            given = {name for name, raw in fields.items() if not is_null(raw)}
            if scope["path"] == COMPLETIONS:
                dialects.refuse_removed(given)
            elif dialects.is_older(given):
                await self._older(scope, fields, receive, send)
                return
            elif missing := self._missing_defaults(fields):
                handed_on = with_fields(chunks, fields, missing)
                scope = with_length(scope, sum(map(len, handed_on)))
        await self.app(scope, replay(handed_on, receive), send)

    def _missing_defaults(self, fields: Fields) -> dict[str, Any]:
        if not self.settings.defaults_for_messages:
            return {}
        names = {"max_tokens", "max_completion_tokens", *self.settings.sampling}
        given = values({name: fields[name] for name in names if name in fields})
        return dialects.missing_defaults(given, self.settings)

    async def _older(self, scope: Scope, fields: Fields, receive: Receive, send: Send) -> None:
        read_messages = "return_full_text" in fields or "generation_config" in fields
        leave = None if read_messages else "messages"
        older = dialects.translate(values(fields, leave), self.settings)
        prompt_tokens, bad_words = 0, []
        if older.max_length is not None or older.min_length is not None:
            prompt_tokens = await self._count(scope, older)
        for ids in older.bad_words_ids:
            bad_words.append(await self._spell(scope, older, ids))
        body = encode(dialects.finish(older, prompt_tokens, bad_words))
        wrapped = (TextStream if older.stream else WholeAnswer)(send, older)
        await self.app(with_length(scope, len(body)), replay([body], receive), wrapped)

    async def _count(self, scope: Scope, older: Older) -> int:
        """The prompt's tokens, counted by vLLM."""
        return len((await self._tokenizer(scope, "/tokenize", older, PROMPT))["tokens"])

    async def _spell(self, scope: Scope, older: Older, ids: list[int]) -> str:
        """The text by which vLLM's `bad_words` bans these tokens."""
        model = ("model",)
        try:
            answer = await self._tokenizer(scope, "/detokenize", older, model, tokens=ids)
        except VllmError as error:
            if error.status < 500:
                raise
            raise RequestError(  # what vLLM answers to an id out of range
                f"'bad_words_ids': vLLM has no text for {ids}", "bad_words_ids"
            ) from error
        spelt = answer["prompt"]
        word = spelt.replace(WORD_START, " ").lstrip()
        # vLLM bans a word's tokens at the start of a text, and those behind a space if as many.
        readings = []
        for text in (word, f" {word}"):
            asked = {"prompt": text, "add_special_tokens": False}
            answer = await self._tokenizer(scope, "/tokenize", older, model, **asked)
            readings.append(answer["tokens"])
        first, behind_space = readings
        if ids == first or (ids == behind_space and len(first) == len(behind_space)):
            return str(word)
        raise RequestError(
            f"'bad_words_ids': vLLM bans several tokens by their text, and {word!r} is not "
            f"read as {ids}; send vLLM's `bad_words` with the text itself",
            "bad_words_ids",
        )

    async def _tokenizer(
        self, scope: Scope, path: str, older: Older, names: tuple[str, ...], **more: Any
    ) -> dict[str, Any]:
        asked = {name: older.chat[name] for name in names if name in older.chat}
        status, body = await ask(self.app, scope, path, encode({**asked, **more}))
        if status != 200:
            raise VllmError(status, body)
        answer: dict[str, Any] = json.loads(body)
        return answer


class VllmError(Exception):
    """An error vLLM answered with on the way to the answer; the client gets it as it is."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def read_fields(body: bytes) -> Fields | None:
    """The names of a JSON object's top level and their values, undecoded; None for any other body.

    What vLLM's own reader takes beside JSON proper (NaN, half a surrogate pair, UTF-16) is taken
    here too, or such a body would pass unread.
    """
    try:
        return _decode_fields(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        pass
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None  # vLLM says what is wrong with it
    if not isinstance(read, dict):
        return None
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in read.items()}


def is_null(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:4]) == b"null"


def values(fields: Fields, leave: str | None = None) -> dict[str, Any]:
    """The fields decoded, but for the one to `leave` undecoded unless it is null."""
    found: dict[str, Any] = {}
    for name, raw in fields.items():
        if name == leave and not is_null(raw):
            found[name] = raw
            continue
        try:
            found[name] = json.loads(bytes(raw))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"'{name}' cannot be read as JSON: {error}", name) from error
    return found


def with_fields(chunks: list[bytes], fields: Fields, added: dict[str, Any]) -> list[bytes]:
    """The chunks of a body with fields added. Only the first is copied, unless a null of the
    client's has to give way."""
    first = chunks[0].lstrip()
    if first.startswith(b"{") and fields and not added.keys() & fields.keys():
        return [encode(added)[:-1] + b"," + first[1:], *chunks[1:]]
    return [encode({**fields, **added})]


def encode(fields: dict[str, Any]) -> bytes:
    """The JSON object of these fields, whose undecoded values are put in as they are."""
    parts: list[Any] = []
    for name, value in fields.items():
        parts += [b"," if parts else b"{", json.dumps(name).encode(), b":"]
        parts.append(value if isinstance(value, msgspec.Raw) else json.dumps(value).encode())
    return b"".join([*parts, b"}"]) if parts else b"{}"

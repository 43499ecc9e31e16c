"""The inner middleware: reads a request, checks it, and passes it on or translates it.

Promises: POST /predict is the same as /v1/chat/completions, which also takes the legacy format
(legacy/). A request in the OpenAI format that needs no change reaches vLLM byte for byte, and its
response passes unchanged. Refuses, with an error in the OpenAI format (errors/), a body that is not
a JSON object in UTF-8, one over a limit (limits.py), and what preparation.py refuses.
"""

import json
import logging
import time
import traceback
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request

from predict import pacing, prompt_logprobs
from predict.admission import METRICS, PLACED
from predict.asgi import (
    App,
    ClientLeftError,
    Message,
    Receive,
    Scope,
    Send,
    as_json,
    ask,
    from_foreign_page,
    replay,
    respond,
    to_path,
    with_length,
)
from predict.errors import INTERNAL_ERROR, RequestError
from predict.errors import reading as error_reading
from predict.errors.responder import ErrorResponder
from predict.images.batch import ImageBatch, image_batch
from predict.legacy.parameters import HEADERS
from predict.legacy.requests import (
    LegacyRequest,
    finish,
    is_legacy,
    missing_defaults,
    translate,
)
from predict.legacy.responses import JSONResponder, TextStreamResponder
from predict.memory import RequestMemory
from predict.requests import bodies, limits, new_tokens, structured_outputs, work
from predict.requests.conversations.notes import HEADER, Notes, header_value
from predict.requests.preparation import prepared
from predict.requests.routes import CHAT_COMPLETIONS
from predict.requests.turns import (
    REST,
    SHOWING,
    LargeRequestTurns,
    ReadingTurns,
    ShowingTurns,
)
from predict.requests.whole_calls import WholeCalls, asks_as_mistral
from predict.requests.words import explained, remembered
from predict.settings import Settings
from predict.vllm_internals import LOGGER

PREDICT = "/predict"
MODELS = "/v1/models"
READ = PLACED - {PREDICT}  # routes whose requests are read

# The fields of a chat request that determine its prompt, as /tokenize takes them.
PROMPT = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
)
WORD_START = "▁"  # sentencepiece's mark, which /detokenize keeps
CONSTRAINT = "structured_outputs"  # vLLM's name for every constraint on the output
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Body = dict[str, Any]

log = logging.getLogger(LOGGER)


class RequestMiddleware:
    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        behind_nginx = settings.most_requests is not None
        self.memory = RequestMemory(settings.limits["image_memory_bytes"], paced=not behind_nginx)
        self.turns = ReadingTurns()
        self.showing = ShowingTurns()
        self.metrics = LargeRequestTurns()
        self.context: int | None = None  # tokens of the model, once vLLM has it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        prompt_logprobs.begin()
        with image_batch(self.memory) as batch:
            await self._respond(scope, receive, send, batch)

    async def _respond(self, scope: Scope, receive: Receive, send: Send, batch: ImageBatch) -> None:
        if scope["path"] == PREDICT:
            scope = to_path(scope, CHAT_COMPLETIONS)
        notes = Notes()
        answer = ErrorResponder(
            naming(send, notes), scope["path"], self.settings.adapters, explained
        )
        try:
            if scope["path"] in READ and scope["method"] == "POST":
                await self._read(scope, receive, answer, notes, batch)
            elif scope["path"] == METRICS:
                await self._metrics(scope, receive, answer)
            elif scope["path"].startswith(MODELS + "/") and scope["method"] == "GET":
                await self._model(scope, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except ClientLeftError:
            return
        except RequestError as error:
            await answer.respond(
                error.status, str(error), error_reading.type_of(error.status), error.param
            )
        except VllmError as error:
            await answer.respond(*error_reading.parse_error(error.status, error.body))
        except Exception as error:
            if answer.begun:
                raise
            if answer.held and await self._told(scope, error_reading.cause(error), answer):
                return
            if error_reading.is_client_error(error):
                await answer.respond(400, error_reading.unreadable(error), "BadRequestError", None)
                return
            # Without the exception's message, which may quote the request.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s while answering %s\n%s", type(error).__name__, scope["path"], where)
            await answer.respond(500, INTERNAL_ERROR, "InternalServerError", None)

    async def _metrics(self, scope: Scope, receive: Receive, answer: ErrorResponder) -> None:
        """Writing them takes the event loop 5 ms and more: one at a time, with a rest."""
        async with self.metrics.turn(0, receive):
            began = time.thread_time()
            await self.app(scope, replay([b""], receive), answer)
            self.metrics.pause(REST * (time.thread_time() - began))

    async def _model(self, scope: Scope, receive: Receive, answer: ErrorResponder) -> None:
        """One model, as in OpenAI's API; vLLM only lists all of them."""
        name = scope["path"].removeprefix(MODELS + "/")
        status, body = await ask(self.app, scope, receive, MODELS, b"")
        if status != 200:
            raise VllmError(status, body)
        for model in json.loads(body)["data"]:
            if model["id"] == name:
                await respond(answer, 200, encoded(model))
                return
        said = f"there is no model {name[:100]!r} here; GET {MODELS} lists them"
        raise RequestError(said, "model", 404)

    async def _told(self, scope: Scope, raised: Exception, answer: ErrorResponder) -> bool:
        """Answers an exception that ended a stream before its first event, if vLLM has a handler
        for it; returns whether it has. vLLM considers the stream begun, and lets the exception
        through."""
        handlers = scope["app"].exception_handlers
        kinds = [
            kind for kind in type(raised).__mro__ if kind in handlers and kind is not Exception
        ]
        if not kinds:
            return False
        told = await handlers[kinds[0]](Request(scope), raised)
        error = error_reading.error_in_event(b"data: " + told.body)
        await answer.respond(*error_reading.parse_error(*error, answer.constraint, answer.request))
        return True

    async def _read(
        self,
        scope: Scope,
        receive: Receive,
        answer: ErrorResponder,
        notes: Notes,
        batch: ImageBatch,
    ) -> None:
        body = await bodies.read(scope, receive, self.settings.limits, batch.body)
        if not from_foreign_page(scope):
            scope = as_json(scope, HEADERS)  # by default curl declares a form
        every = scope.get(pacing.SCOPE, 1)
        request = await self.turns.take(
            len(body),
            receive,
            partial(self._understood, scope, body, answer, every, notes, batch),
        )
        size = len(body)
        if isinstance(request, LegacyRequest):
            del body  # as below
            await self.turns.answer(size, self._legacy(scope, request, receive, answer))
            return
        if request is not body:
            scope = with_length(scope, len(request))
        replayed = replay([request], receive)
        del body, request  # else they would stay in memory until the answer ends
        send = WholeCalls(answer) if notes.whole_calls else answer
        if scope["path"] in SHOWING:
            await self.showing.answer(size, receive, send, partial(self.app, scope, replayed))
        else:
            await self.turns.answer(size, self.app(scope, replayed, send))

    def _understood(
        self,
        scope: Scope,
        whole: bytes,
        answer: ErrorResponder,
        stream_interval: int,
        notes: Notes,
        batch: ImageBatch,
    ) -> bytes | LegacyRequest:
        """The body that vLLM is to get, or the legacy request that it is."""
        path = scope["path"]
        limits.check_size(whole, self.settings.limits)
        body = decoded(whole)
        changed = limits.check(body, len(whole), self.settings.limits)
        batch.answers = work.sequences_of_one(body)
        ready = self._prepared(path, body, notes)
        answer.constraint = structured_outputs.constraint(ready)
        if answer.constraint is not None:
            answer.names = {CONSTRAINT: answer.constraint}
        answer.request = remembered(ready, len(whole))
        if ready.get("tools") and ready.get("stream") and path == CHAT_COMPLETIONS:
            notes.whole_calls = asks_as_mistral(scope, body)
        given = {name for name, value in ready.items() if value is not None}
        legacy = path == CHAT_COMPLETIONS and is_legacy(given)
        missing = {}
        if self.settings.defaults_for_messages and path == CHAT_COMPLETIONS and not legacy:
            missing = missing_defaults(ready, self.settings)
        if not legacy:
            missing |= self._bounded(path, ready | missing if missing else ready)
        if path in pacing.ROUTES:
            missing |= pacing.missing(ready, stream_interval)
        if legacy:
            return translate(ready | missing, self.settings)
        if changed or ready is not body or missing.keys() & body.keys():
            return encoded(ready | missing)
        return with_fields(whole, missing) if missing else whole

    def _bounded(self, path: str, body: Body, names: dict[str, str] | None = None) -> Body:
        return new_tokens.bounded(path, body, self.settings.limits, self.context, names)

    def _prepared(self, path: str, body: Body, notes: Notes) -> Body:
        ready = prepared(path, body, self.settings.tokenizer, notes)
        if ready is not body:  # a schema put together here may be larger than its parts
            opened = structured_outputs.opened(ready)
            structured_outputs.check(opened, self.settings.limits)
        return ready

    async def _legacy(
        self, scope: Scope, legacy: LegacyRequest, receive: Receive, answer: ErrorResponder
    ) -> None:
        answer.names = {**legacy.names, **answer.names}
        prompt_tokens, bad_words = 0, []
        if legacy.max_length is not None or legacy.min_length is not None:
            counted = await self._tokenizer(scope, receive, "/tokenize", legacy, PROMPT)
            prompt_tokens = len(counted["tokens"])
        for ids in legacy.bad_words_ids:
            bad_words.append(await self._spell(scope, receive, legacy, ids))
        finished = finish(legacy, prompt_tokens, bad_words)
        chat = encoded(finished | self._bounded(CHAT_COMPLETIONS, finished, legacy.names))
        wrapped = (TextStreamResponder if legacy.stream else JSONResponder)(answer, legacy)
        scope, replayed = with_length(scope, len(chat)), replay([chat], receive)
        del chat, finished, legacy.chat["messages"]  # as in _read
        await self.app(scope, replayed, wrapped)

    async def _spell(
        self, scope: Scope, receive: Receive, legacy: LegacyRequest, ids: list[int]
    ) -> str:
        """The text that makes vLLM's `bad_words` ban these tokens."""
        model = ("model",)
        answer = await self._tokenizer(scope, receive, "/detokenize", legacy, model, tokens=ids)
        word = answer["prompt"].replace(WORD_START, " ").lstrip()
        # vLLM bans a word's tokens at the start of a text, and those after a space if they are as
        # many.
        readings = []
        for text in (word, f" {word}"):
            asked = {"prompt": text, "add_special_tokens": False}
            answer = await self._tokenizer(scope, receive, "/tokenize", legacy, model, **asked)
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
        self,
        scope: Scope,
        receive: Receive,
        path: str,
        legacy: LegacyRequest,
        names: tuple[str, ...],
        **more: Any,
    ) -> Any:
        asked = {name: legacy.chat[name] for name in names if name in legacy.chat}
        status, body = await ask(self.app, scope, receive, path, encoded({**asked, **more}))
        if status != 200:
            raise VllmError(status, body)
        return json.loads(body)


class VllmError(Exception):
    """An error of vLLM's on the way to the answer; the client gets it."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def decoded(body: bytes) -> Body:
    """The JSON object in a body; a `RequestError` says what is wrong with any other body."""
    try:
        got = msgspec.json.decode(body.removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: {error.reason}", None) from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", None) from None
    except msgspec.MsgspecError as error:
        raise RequestError(_what_is_wrong(body, error), None) from None
    if not isinstance(got, dict):
        raise RequestError("the body is JSON, but not an object, {…}", None)
    return got


def _what_is_wrong(body: bytes, error: msgspec.MsgspecError) -> str:
    if not body.strip():
        return "the body is empty; send a JSON object"
    if b"\\ud" in body.lower():
        return f"the body is not JSON in UTF-8, or has half a surrogate pair: {error}"
    if body.lstrip()[:1] == b"{" and body.lstrip()[1:].lstrip()[:1] == b"'":
        return f"the body is not JSON: names and texts have double quotes, not single ones: {error}"
    return f"the body is not JSON (which has no NaN or Infinity) in UTF-8: {error}"


encoded = msgspec.json.encode


def naming(send: Send, notes: Notes) -> Send:
    """A `send` whose response names what was ignored in the request."""

    async def named(message: Message) -> None:
        if notes and message["type"] == "http.response.start":
            ignored = (HEADER, header_value(notes.names))
            message = {**message, "headers": [*message["headers"], ignored]}
        await send(message)

    return named


def with_fields(body: bytes, added: Body) -> bytes:
    """A body with fields added in front."""
    first = body.removeprefix(BYTE_ORDER_MARK).lstrip()
    if first.startswith(b"{") and first[1:1000].strip() not in (b"", b"}"):
        return encoded(added)[:-1] + b"," + first[1:]
    return encoded(decoded(body) | added)

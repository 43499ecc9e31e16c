"""Asks process.py whether a constraint may go to the engine, before vLLM itself reads it.

Promises: every constraint that would reach vLLM's engine, on any route and in any field, is first
tried as vLLM would compile it. A verdict is kept under the hash of what was sent, so only its first
request waits, unless another trial might have another result. What xgrammar cannot read goes to the
engine as it was rewritten and tried (rewriting.py). A trial process that dies is started again. The
engine gets the time of the slowest mask seen. Refuses with a 400 that says what is too slow, and
with a 503 if there is no verdict in time.
"""

import asyncio
import hashlib
import itertools
import json
import logging
import math
import time
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

from vllm.exceptions import GracefulHTTPError, VLLMValidationError
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import choice_as_grammar, grammar_is_likely_lark

from predict.constraints.child import Child, begun
from predict.constraints.recent import Recent
from predict.constraints.turns import EXTRA
from predict.vllm_internals import LOGGER

MOST_KEPT = 10_000
MOST_REWRITTEN = 100  # … of them rewritten, up to four times rewriting.MOST_BYTES each
WAIT_SECONDS = 30.0
MOST_SECONDS = 1.0  # for the masks of one token of all answers to a prompt
FIELD = "structured_outputs"  # vLLM's name; errors/ puts the client's in its place

BUSY = "too many new constraints on the output are being checked; try again later"

log = logging.getLogger(LOGGER)
Result = TypeVar("Result")


class Verdict(NamedTuple):
    error: str | None
    mask_seconds: float  # of the slowest mask
    until: float = math.inf  # on the monotonic clock
    words: tuple[str, str] | None = None  # kind and text, if rewritten


class RefusedConstraintError(VLLMValidationError):  # type: ignore[misc]
    """Becomes a 400. Its text is the message alone: vLLM's own classes add the parameter's
    value."""

    def __str__(self) -> str:
        return str(self.args[0])


def spelled(params: Any) -> tuple[str, str] | None:
    """A constraint as process.py takes it; None for one that all requests share, and for one that
    constrains nothing (`{"json_object": false}`), for which vLLM has its own error."""
    if params.choice:
        return "ebnf", choice_as_grammar(params.choice)
    try:
        kind, text = get_structured_output_key(params)
    except ValueError:
        return None
    match kind:
        case StructuredOutputOptions.JSON:
            return "json_schema", text
        case StructuredOutputOptions.REGEX:
            return "regex", text
        case StructuredOutputOptions.GRAMMAR:
            return ("lark" if grammar_is_likely_lark(text) else "ebnf"), text
        case StructuredOutputOptions.STRUCTURAL_TAG:
            return "structural_tag", text
    return None


def put(params: Any, kind: str, text: str) -> None:
    """The reverse of `spelled`: has the engine follow this constraint."""
    match kind:
        case "json_schema":
            params.json = text
        case "structural_tag":
            params.structural_tag = text
        case "regex":
            params.regex = text
        case "ebnf":
            params.grammar, params.regex = text, None  # in this order, so that one is always set


def hashed(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"{kind}\0{text}".encode(errors="surrogatepass")).digest()


def tokenizer_setup(vllm_config: Any) -> dict[str, Any]:
    """What process.py needs to know of the tokenizer, as vLLM itself reads it."""
    config = vllm_config.model_config
    backend = XgrammarBackend(
        vllm_config,
        tokenizer=cached_tokenizer_from_config(config),
        vocab_size=config.get_vocab_size(),
    )
    separators = [",", ":"] if backend.disable_any_whitespace else None
    return {
        "tokenizer": backend.compiler.compile_regex("a").tokenizer_info.serialize_json(),
        "separators": separators,
    }


def background(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """A task whose error reaches only those that await it."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Verdicts:
    def __init__(self, vllm_config: Any) -> None:
        self.vllm_config = vllm_config
        self.known: Recent[Verdict] = Recent(MOST_KEPT)
        self.rewritten: Recent[Verdict] = Recent(MOST_REWRITTEN)
        self.asked: dict[bytes, asyncio.Task[Verdict]] = {}
        self.waiting: dict[int, asyncio.Future[tuple[Verdict, bool]]] = {}
        self.numbers = itertools.count()
        self.child: Child | None = None
        self.listening: asyncio.Task[None] | None = None
        self.started = asyncio.Lock()
        self.task = background(self._ready())  # usually long before the first request

    async def check(self, params: Any) -> float:
        """The seconds of the constraint's slowest mask; raises vLLM's error if it is refused. What
        xgrammar cannot read is rewritten in `params`."""
        constraint = spelled(params)
        if constraint is None:
            return 0.0
        key = hashed(*constraint)
        verdict = self.rewritten.get(key) or self.known.get(key)
        if verdict is None or verdict.until < time.monotonic():
            if key not in self.asked:
                self.asked[key] = background(self._ask(key, *constraint))
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    verdict = await asyncio.shield(self.asked[key])
            except OSError:  # no verdict in time, no process, or one that died
                raise GracefulHTTPError(BUSY, HTTPStatus.SERVICE_UNAVAILABLE) from None
        if verdict.error is not None:
            raise RefusedConstraintError(f"'{FIELD}' {verdict.error}", parameter=FIELD)
        if verdict.words is not None:
            put(params, *verdict.words)
        return verdict.mask_seconds

    async def _ask(self, key: bytes, kind: str, text: str) -> Verdict:
        number = next(self.numbers)
        try:
            child = await self._ready()
            answer = self.waiting[number] = asyncio.get_running_loop().create_future()
            child.ask({"id": number, "kind": kind, "text": text})
            verdict: Verdict
            verdict, keep = await answer
            if keep and verdict.words is not None:
                self.rewritten[key] = verdict
                again = hashed(*verdict.words)  # as the request's next prompt has it
                self.known[again] = verdict._replace(words=None)
            elif keep:
                self.known[key] = verdict
            return verdict
        finally:
            self.waiting.pop(number, None)
            del self.asked[key]

    async def _ready(self) -> Child:
        async with self.started:
            if self.child is None or self.child.process.poll() is not None:
                setup = await asyncio.to_thread(tokenizer_setup, self.vllm_config)
                try:
                    self.child = await begun(setup)
                except OSError:
                    log.error("the process that tries constraints did not start")
                    raise
                self.listening = asyncio.create_task(self._listen(self.child))
            return self.child

    async def _listen(self, child: Child) -> None:
        try:
            while line := await child.answer():
                self._heard(json.loads(line))
        except Exception as error:
            log.error("what the process that tries constraints says is %s", type(error).__name__)
        await child.end()  # nobody listens to it any more
        log.error("the process that tries constraints has ended")
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionError())

    def _heard(self, said: dict[str, Any]) -> None:
        if (answer := self.waiting.get(said["id"])) is None or answer.done():
            return
        if said["in_time"]:
            kept = said.get("keep_seconds")
            until = math.inf if kept is None else time.monotonic() + kept
            words = said["words"] and tuple(said["words"])
            verdict = Verdict(said["error"], said["mask_seconds"], until, words)
            answer.set_result((verdict, said["keep"]))
        else:
            answer.set_exception(TimeoutError())

    def end(self) -> None:
        for task in (self.task, self.listening):
            if task is not None:
                task.cancel()
        if self.child is not None:
            self.child.process.kill()


def check_answers(seconds: float, answers: int) -> None:
    """Refuses several answers whose masks, of `seconds` each, would take too long for a token."""
    if answers > 1 and answers * seconds > MOST_SECONDS:
        raise VLLMValidationError(
            f"'n' is {answers}, and the constraint on the output takes {seconds * 1000:.0f} ms for "
            f"each token of each answer; at most {max(1, int(MOST_SECONDS / seconds))} is allowed",
            parameter="n",
        )


def install(engine: Any) -> Verdicts:
    """Has the constraint of every request to vLLM's EngineClient tried first."""
    verdicts = Verdicts(engine.vllm_config)
    original = engine.add_request

    async def add_request(
        request_id: str, prompt: Any, params: Any, *rest: Any, **more: Any
    ) -> Any:
        constraint = getattr(params, "structured_outputs", None)
        if constraint is not None and not constraint.all_constraints_none():
            seconds = await verdicts.check(constraint)
            check_answers(seconds, params.n)
            params.extra_args = {
                **(params.extra_args or {}),
                EXTRA: seconds,
            }  # with the client's own
        return await original(request_id, prompt, params, *rest, **more)

    engine.add_request = add_request
    return verdicts

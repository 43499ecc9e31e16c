"""What logging.json, our configuration of vLLM's logging, keeps out of the logs.

Promises: vLLM's lines and uvicorn's stay as they are, except for what they would quote of a
request: an exception's message, an error that was answered, the query of a URL, the text of a
warning. Where it happened, and its type, stay.
"""

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from predict.vllm_internals import BATCH_LOGGER, QUOTING_LOGGERS

READERS = ("vllm.renderers", "vllm.tokenizers")  # loggers of code that reads requests
WARNING = re.compile(r"^[^\n]*?:\d+: \w+(?=:)")  # where, and of what category


def redacting_filter() -> Callable[..., bool]:
    """The filter, made by logging's `dictConfig`. From then on Python's warnings are logged."""
    logging.captureWarnings(True)
    return redact


def redact(record: logging.LogRecord) -> bool:
    """Removes from a record what it quotes of a request; keeps every record."""
    if not hasattr(record, "vllm_process_name"):  # before vLLM has set it
        record.vllm_process_name = record.processName
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and record.name.startswith(READERS) and isinstance(error, ValueError):
        record.exc_info = None  # what a client sent is not the server's fault
    elif record.exc_info and record.exc_info[1]:
        record.exc_text = "\n".join(_traces(record.exc_info[1]))
        record.exc_info = None
    if record.name == "py.warnings":
        found = WARNING.match(record.getMessage())
        record.msg, record.args = (found[0] if found else "a warning"), ()
    elif isinstance(record.args, tuple):
        if record.name == "uvicorn.access":
            client, method, path, version, status = record.args
            record.args = (client, method, str(path).partition("?")[0], version, status)
        reader = record.levelno >= logging.WARNING and record.name.startswith(QUOTING_LOGGERS)
        reader |= record.name == BATCH_LOGGER
        record.args = tuple(_unquoted(value, reader) for value in record.args)
    return True


def _unquoted(value: Any, reader: bool) -> Any:
    """A value's type instead of its text: for an exception, for an answer of vLLM's and, if a
    `reader` logs, for anything but a number."""
    kind = type(value)
    quotes = issubclass(kind, BaseException) or hasattr(kind, "model_dump")
    quotes |= reader and not issubclass(kind, (int, float))
    return f"<{kind.__name__}>" if quotes else value


def _traces(error: BaseException) -> Iterator[str]:
    """Where an exception was raised, and its type; before that, the same for its causes."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _traces(before)
        yield "which led to:"
    yield "Traceback (most recent call last):"
    yield from (line.rstrip("\n") for line in traceback.format_tb(error.__traceback__))
    yield f"{type(error).__module__}.{type(error).__qualname__}"

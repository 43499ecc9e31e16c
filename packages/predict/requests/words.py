"""Puts what vLLM and mistral-common say about a request into the request's own terms.

Promises: pure functions. If vLLM's message lacks them, `explained` gives a sentence with the place,
the value and what is allowed; it finds the place if vLLM names none, or names a field that the
client did not send. Any other message and place stay as they are.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from predict.errors import shown
from predict.errors.reading import NOT_SAID
from predict.requests import tool_schemas
from predict.vllm_internals import (
    CONTEXT_LENGTH,
    EMPTY_CHOICE,
    EMPTY_PROMPTS,
    GREEDY,
    NO_CONSTRAINT,
    NO_IMAGES,
    NO_PROMPT,
    OUT_OF_VOCABULARY,
    SEVERAL_CONSTRAINTS,
    TOOL_SCHEMA,
    UNKNOWN_MODEL,
)

CONVERSATIONS = ("messages", "input", "prompt")  # the field with the content, by route
MOST_REMEMBERED = 65_536  # bytes; of a larger request the content is not kept
MOST_NAMES = 500  # of a request's fields that are looked for in a message
CONSTRAINT = "structured_outputs"
KINDS = "json, regex, choice, grammar, json_object or structural_tag"
IMAGES = ("image_url", "input_image", "image")
# vLLM's names, and what other routes call these fields.
OTHER_NAMES = {
    "max_completion_tokens": ("max_tokens", "max_output_tokens"),
    "max_tokens": ("max_completion_tokens", "max_output_tokens"),
    "stop": ("stop_sequences",),
}

Request = Mapping[str, Any]


def explained(message: str, param: str | None, request: Request) -> tuple[str, str | None]:
    """A better message and place for what vLLM said about this request."""
    if message == NOT_SAID:
        return message, param
    if TOOL_SCHEMA in message and (found := _tool_schema(request)):
        return found
    about = next((name for name in CONVERSATIONS if name in request), None)
    if NO_IMAGES in message and (place := next(_images(request), None)):
        return f"'{place}' is an image, and this model takes text only; leave it out", place
    if message.startswith(NO_CONSTRAINT):
        got = shown(request.get(CONSTRAINT))
        return f"'{CONSTRAINT}' is {got}, which constrains nothing; it takes {KINDS}", CONSTRAINT
    if message.startswith(SEVERAL_CONSTRAINTS):
        return f"{_constraints(request)} each hold the answer to a form; send one", CONSTRAINT
    if EMPTY_CHOICE in message:
        place = f"{CONSTRAINT}.choice"
        return f"'{place}' is []; it takes a list of the texts to choose from", place
    if message.startswith(EMPTY_PROMPTS):
        return f"'{about}' is empty; it takes at least one token", about
    if GREEDY in message:
        got = f"'n' is {shown(request.get('n'))}, and with a 'temperature' of 0 all answers are one"
        return f"{got}; send a higher temperature, or leave n out", "n"
    if message.startswith(NO_PROMPT):
        got = f"is {shown(request['prompt'])}" if "prompt" in request else "is missing"
        return f"'prompt' {got}; it takes a text, or a list of texts or token ids", "prompt"
    if OUT_OF_VOCABULARY in message or message.startswith(CONTEXT_LENGTH):
        return message, about
    if UNKNOWN_MODEL in message:
        return message, param or "model"
    if param is not None:
        return _by_its_name(message, param, request)
    return _named(message, request)


def remembered(body: Request, size: int) -> Request:
    """What to keep of a request until it is answered, to explain an error: of a large one, all but
    the conversation, which was checked here."""
    if size <= MOST_REMEMBERED:
        return body
    return {name: None if name in CONVERSATIONS else value for name, value in body.items()}


def _by_its_name(message: str, param: str, request: Request) -> tuple[str, str]:
    if param not in request:
        for other in OTHER_NAMES.get(param, ()):
            if request.get(other) is not None:
                return re.sub(rf"\b{param}\b", other, message), other
    return message, param


def _named(message: str, request: Request) -> tuple[str, str | None]:
    """Adds the field that a message is about: the first of the request's names in it."""
    found = []
    for place in itertools.islice(_places(request), MOST_NAMES):
        name = place.rpartition(".")[2]
        # an English word counts as a name only at the start or in quotes
        word = rf"\b{re.escape(name)}\b" if "_" in name else rf"^{re.escape(name)}\b|['`]{name}['`]"
        if FIELD.fullmatch(name) and (match := re.search(word, message)):
            found.append((match.start(), place))
    if not found:
        return message, None
    _, place = min(found)
    outer, _, name = place.rpartition(".")
    if outer and place not in message:
        return f"'{place}' is {shown(request[outer][name])}: {message}", place
    return message, place


FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")


def _places(request: Request) -> Iterator[str]:
    for name, value in request.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)


def _constraints(request: Request) -> str:
    outer = [f"'{name}'" for name in ("response_format", CONSTRAINT) if request.get(name)]
    if len(outer) > 1:
        return " and ".join(outer)
    given = request.get(CONSTRAINT)
    inner = [name for name in given if given[name] is not None] if isinstance(given, dict) else []
    return " and ".join(f"'{CONSTRAINT}.{name}'" for name in inner[:4]) or f"'{CONSTRAINT}'"


def _images(request: Request) -> Iterator[str]:
    nodes = [(request.get(name), name) for name in CONVERSATIONS]
    for node, place in nodes:  # grows during the loop
        if isinstance(node, list):
            nodes += [(inner, f"{place}[{i}]") for i, inner in enumerate(node)]
        elif isinstance(node, dict):
            if node.get("type") in IMAGES:
                yield place
            nodes += [(node[name], f"{place}.{name}") for name in ("content",) if name in node]


def _tool_schema(request: Request) -> tuple[str, str] | None:
    tools = request.get("tools")
    for position, tool in enumerate(tools if isinstance(tools, list) else ()):
        place, schema = _schema(tool, f"tools[{position}]")
        for error in tool_schemas.faults(schema):
            for step in error.absolute_path:
                place += f"[{step}]" if isinstance(step, int) else f".{step}"
            place = place if len(place) <= 150 else f"…{place[-149:]}"
            return f"'{place}' is {shown(error.instance)}; {_wanted(error)} (JSON schema)", place
    return None


def _schema(tool: Any, place: str) -> tuple[str, Any]:
    inner = tool.get("function") if isinstance(tool, dict) else None
    if isinstance(inner, dict):
        return f"{place}.function.parameters", inner.get("parameters") or {}
    for name in ("input_schema", "parameters"):
        if isinstance(tool, dict) and isinstance(tool.get(name), dict):
            return f"{place}.{name}", tool[name]
    return place, {}


def _wanted(error: Any) -> str:
    if error.validator == "type":
        kinds = error.validator_value
        return f"it takes a {' or '.join(kinds) if isinstance(kinds, list) else kinds}"
    if error.validator == "anyOf":
        return "it takes something else"
    if error.validator == "enum":
        return f"it takes one of {shown(error.validator_value)}"
    return str(error.message)[:80]

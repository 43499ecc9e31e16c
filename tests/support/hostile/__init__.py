"""Hostile requests: data by what it contains, and the requests made from it.

Promises: `cases` names each request by what it does; the same model gives the same requests in the
same order. Content that is too large to write down is generated.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.hostile import bodies, constraints, fields, messages, protocols
from tests.support.hostile.case import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    MESSAGES,
    PREDICT,
    RESPONSES,
    TOKENIZE,
    Body,
    Case,
    tool,
    user,
    valid,
)
from tests.support.hostile.messages import TOOL, USER

STREAMED = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, PREDICT)  # routes that know `stream`


@dataclass(frozen=True)
class Group:
    """Requests to each route, valid except for the fields that `made` makes of each value."""

    routes: Iterable[str]
    name: str
    values: Mapping[str, Any]
    made: Callable[[Any], Body]

    def cases(self, model: str) -> Iterator[Case]:
        """Each as it is, and again as a stream if the route supports that."""
        requests = valid(model)
        for path in self.routes:
            for name, value in self.values.items():
                body = {**requests[path], **self.made(value)}
                yield Case(f"{path} {self.name}{name}", path, json.dumps(body).encode())
                if path in STREAMED:
                    content = json.dumps({**body, "stream": True}).encode()
                    yield Case(f"{path} {self.name}{name}, streamed", path, content)


def itself(value: Any) -> Any:
    return value


def alone(field: str) -> Callable[[Any], Body]:
    return lambda value: {field: value}


def constraint(kind: str) -> Callable[[Any], Body]:
    return lambda value: {"structured_outputs": {kind: value}}


def response_format(schema: Any) -> Body:
    named = {"name": "a", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def tool_of(schema: Any) -> Body:
    return {"tools": [tool({"name": "f", "parameters": schema})]}


TEXT = (CHAT, COMPLETIONS)
CHATS = (CHAT, MESSAGES, COUNT_TOKENS, TOKENIZE)
ANTHROPIC = (MESSAGES, COUNT_TOKENS)

# Models with images may treat these differently from models without.
CONTENTS = [
    Group(CHATS, "messages: ", messages.MESSAGE_LISTS, alone("messages")),
    Group(CHATS, "part ", messages.PARTS, lambda part: {"messages": user([part])}),
    Group([RESPONSES], "part ", messages.PARTS, lambda part: {"input": user([part])}),
    Group(ANTHROPIC, "block ", protocols.BLOCKS, lambda block: {"messages": user([block])}),
]

GROUPS = [
    *CONTENTS,
    Group(TEXT, "schema ", constraints.SCHEMAS, constraint("json")),
    Group(TEXT, "response format of a schema ", constraints.SCHEMAS, response_format),
    Group(TEXT, "regex ", constraints.REGEXES, constraint("regex")),
    Group(TEXT, "grammar ", constraints.GRAMMARS, constraint("grammar")),
    Group(TEXT, "constraint ", constraints.CONSTRAINTS, alone("structured_outputs")),
    Group(TEXT, "format ", constraints.FORMATS, alone("response_format")),
    Group((*TEXT, RESPONSES, PREDICT), "", fields.COMBINATIONS, itself),
    Group(
        (CHAT, TOKENIZE),
        "tools: ",
        messages.TOOL_LISTS,
        lambda tools: {"messages": [USER], "tools": tools},
    ),
    Group([CHAT], "tool of a schema ", constraints.SCHEMAS, tool_of),
    Group(
        [CHAT],
        "required tool of a schema ",
        constraints.SCHEMAS,
        lambda schema: {**tool_of(schema), "tool_choice": "required"},
    ),
    Group(
        [CHAT],
        "choice: ",
        messages.CHOICES,
        lambda choice: {"tools": [TOOL], "tool_choice": choice},
    ),
    Group(
        [CHAT],
        "choice of nothing: ",
        messages.CHOICES,
        lambda choice: {"tools": [{}], "tool_choice": choice},
    ),
    Group([CHAT], "choice without tools: ", messages.CHOICES, alone("tool_choice")),
    Group(
        valid(""),
        "the engine's own ",
        {name: {name: value} for name, value in fields.ENGINE_S_OWN.items()},
        itself,
    ),
    Group((COMPLETIONS, TOKENIZE), "prompt: ", fields.PROMPTS, alone("prompt")),
    Group([RESPONSES], "input: ", {**protocols.INPUTS, **messages.MESSAGE_LISTS}, alone("input")),
    Group([RESPONSES], "", protocols.RESPONSES_FIELDS, itself),
    Group(ANTHROPIC, "", protocols.ANTHROPIC_FIELDS, itself),
    Group([PREDICT], "", protocols.LEGACY, itself),
    Group([DETOKENIZE], "tokens: ", fields.TOKENS, alone("tokens")),
]


def cases(model: str) -> Iterator[Case]:
    """The fixed requests, for a model of this name."""
    for path, request in valid(model).items():
        for name, content in bodies.NOT_A_REQUEST.items():
            yield Case(f"{path} {name}", path, content)
        yield from bodies.transported(path, json.dumps(request).encode())
    for group in GROUPS:
        yield from group.cases(model)


def contents(model: str) -> Iterator[Case]:
    """The fixed requests that concern the content of a message."""
    for group in CONTENTS:
        yield from group.cases(model)


def wrong_values(model: str, names: Mapping[str, Iterable[str]]) -> Iterator[Case]:
    """Each field of `names`, by route, with each of the wrong values, beside a valid request."""
    requests = valid(model)
    for path, fields_of in names.items():
        for name in fields_of:
            for value in fields.WRONG_VALUES:
                content = json.dumps({**requests[path], name: value}).encode()
                yield Case(f"{path} {name}: {str(value)[:40]}", path, content)

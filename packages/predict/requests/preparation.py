"""A decoded request → the request that vLLM is to see.

Promises: `prepared` is a pure function. Names first (fields.py), then tools (tools.py), the form of
the answer (formats.py) and the conversation (conversations/): each returns the same object where
nothing has to change, so that a request that needs nothing goes on byte for byte.
"""

from typing import Any

from predict.requests import conversations, fields, formats, tools
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.notes import Notes

Body = dict[str, Any]


def prepared(path: str, body: Body, rules: Generation, notes: Notes) -> Body:
    body = fields.settled(path, body, notes)
    body = tools.settled(path, body, rules, notes)
    body = formats.settled(path, body, notes)
    return conversations.adapted(path, body, rules, notes)

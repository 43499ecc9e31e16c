"""Turns a decoded request into the request that vLLM is to see.

Promises: `prepared` is a pure function. It settles names (fields.py), then tools (tools.py), the
form of the answer (formats.py) and the conversation (conversations/). Each step returns the same
object if nothing has to change, so a request that needs no change goes on byte for byte.
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

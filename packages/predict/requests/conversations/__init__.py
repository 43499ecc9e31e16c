"""Conversations in their clients' forms → as the model's tokenizer takes them.

messages.py handles one message, chat.py their order, ids.py the ids of calls; responses.py and
anthropic.py convert the two other forms; generations.py says what each tokenizer takes, and
notes.py names what was left out.

Promises: `adapted` is a pure function of the decoded body; a conversation that needs no change is
returned as the same object, and nothing is decoded twice.
"""

from typing import Any

from predict.errors import RequestError, shown
from predict.requests.conversations import anthropic, chat, responses
from predict.requests.conversations.chat import Turn
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.notes import Notes
from predict.requests.routes import ANTHROPIC_ROUTES, CHAT_ROUTES, RESPONSES

Body = dict[str, Any]


def adapted(path: str, body: Body, rules: Generation, notes: Notes) -> Body:
    """The body with a conversation that the tokenizer takes; the same object if it has one."""
    if path in CHAT_ROUTES and body.get("messages") is not None and body.get("prompt") is None:
        return _chat(body, rules, notes)
    if path == RESPONSES and isinstance(body.get("input"), (list, dict)):
        return _responses(body, rules, notes)
    if path in ANTHROPIC_ROUTES:
        return _anthropic(body, rules, notes)
    return body


def _messages(body: Body, name: str) -> list[Any]:
    messages = body.get(name)
    if not isinstance(messages, list):
        got = f"is {shown(messages)}" if name in body else "is missing"
        raise RequestError(f"'{name}' {got}; it takes a list of messages", name)
    if not messages:
        raise RequestError(f"'{name}' is empty; send at least one message of the user", name)
    return messages


def _chat(body: Body, rules: Generation, notes: Notes) -> Body:
    messages = _messages(body, "messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            place = f"messages[{position}]"
            raise RequestError(f"'{place}' is {shown(message)}; it takes an object", place)
    if not body.get("continue_final_message") and chat.is_plain(messages):
        return body
    turns = [Turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
    fitted, continued = chat.fit(turns, rules, notes)
    if not chat.same(turns, fitted):
        body = {**body, "messages": [turn.message for turn in fitted]}
    if continued:
        flags = {"continue_final_message": True, "add_generation_prompt": False}
        if body.get("continue_final_message") is True and body.get("add_generation_prompt") is True:
            raise RequestError(
                "'continue_final_message' and 'add_generation_prompt' are both true; send one",
                "add_generation_prompt",
            )
        if any(body.get(name) is not flag for name, flag in flags.items()):
            body = {**body, **flags}
    elif body.get("continue_final_message"):
        raise RequestError(
            "'continue_final_message' is true, and the last message is not the assistant's; send "
            "the beginning of the answer as the last message, or leave it out",
            "continue_final_message",
        )
    return body


def _responses(body: Body, rules: Generation, notes: Notes) -> Body:
    turns, plain = responses.read(_messages(body, "input"), rules, notes)
    if not turns:
        raise RequestError(
            "'input' has only items that are left out here; send a message of the user", "input"
        )
    fitted, continued = chat.fit(turns, rules, notes)
    going_on = body["input"][-1].get("status") in ("in_progress", "incomplete")
    if plain and chat.same(turns, fitted) and continued == going_on:
        return body
    return {**body, "input": responses.written(fitted, continued)}


def _anthropic(body: Body, rules: Generation, notes: Notes) -> Body:
    anthropic.check_system(body.get("system"))
    messages = _messages(body, "messages")
    turns, plain = anthropic.read(messages, rules, notes)
    fitted, _ = chat.fit(turns, rules, notes)
    if plain and chat.same(turns, fitted):
        return body
    return {**body, "messages": anthropic.written(messages, fitted)}

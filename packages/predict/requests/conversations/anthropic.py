"""The messages of Anthropic's API ↔ turns of a chat.

Promises: pure functions. `read` gives the chat that vLLM makes of the messages, and whether vLLM
would read them exactly so; `written` gives messages that vLLM reads as exactly these turns. Blocks
of tools that run at Anthropic, and a model's reasoning, are left out and named in `notes`.
"""

from typing import Any

import msgspec

from predict.errors import RequestError, shown
from predict.requests.conversations.chat import Turn
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.messages import (
    SYSTEM_ROLES,
    Message,
    as_image,
    check_id,
    check_name,
    text_of,
)
from predict.requests.conversations.notes import Notes

THOUGHTS = ("thinking", "redacted_thinking")
RESULT_NAMES = {"tool_call_id": "tool_use_id"}
CALL_NAMES = {"arguments": "input"}
TAKEN = '"text", "image", "tool_use" and "tool_result"'


def read(messages: list[Any], rules: Generation, notes: Notes) -> tuple[list[Turn], bool]:
    turns: list[Turn] = []
    plain = True
    end = _end(messages)
    for position, message in enumerate(messages):
        place = f"messages[{position}]"
        if not isinstance(message, dict):
            raise RequestError(f"'{place}' is {shown(message)}; it takes an object", place)
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant", "system"):
            where = f"{place}.role"
            raise RequestError(f"'{where}' is {shown(role)}; it takes user or assistant", where)
        if role == "system":
            _check_tools(content, f"{place}.content")
            if position >= end:
                turns.append(_system(content, place, notes))
                plain = False
            continue  # vLLM puts the others in front of the conversation
        if not isinstance(content, list):
            turns.append(Turn({"role": role, "content": content}, place))
            continue
        if role == "user":
            plain &= _user(content, place, turns, notes)
        else:
            plain &= _assistant(content, place, turns, rules, notes)
    return turns, plain


def _end(messages: list[Any]) -> int:
    """Where the system messages begin that follow an answer at the end. That answer is over, but
    vLLM puts system messages in front and would continue it."""
    end = len(messages)
    while end and isinstance(messages[end - 1], dict) and messages[end - 1].get("role") == "system":
        end -= 1
    last = messages[end - 1] if end else None
    return end if isinstance(last, dict) and last.get("role") == "assistant" else len(messages)


def _check_tools(content: Any, place: str) -> None:
    """Refuses tools that are defined in a message, which vLLM would add to the request's."""
    for position, block in enumerate(content if isinstance(content, list) else ()):
        tool = block.get("tool") if isinstance(block, dict) else None
        if isinstance(tool, dict) and tool.get("definition") is not None:
            where = f"{place}[{position}].tool"
            raise RequestError(f"'{where}' defines a tool; define it in 'tools'", where)


def _system(content: Any, place: str, notes: Notes) -> Turn:
    if isinstance(content, list):
        kinds = [_kind(block, f"{place}.content[{i}]") for i, block in enumerate(content)]
        notes.add(*(f"{place}.content[{i}]" for i, kind in enumerate(kinds) if kind != "text"))
        content = [block for block, kind in zip(content, kinds, strict=True) if kind == "text"]
    return Turn({"role": "system", "content": content}, place)


def check_system(system: Any) -> None:
    """Refuses blocks that are not text, which vLLM would drop."""
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise RequestError(f"'system' is {shown(system)}; it takes a string or blocks", "system")
    for position, block in enumerate(system):
        where = f"system[{position}]"
        if (kind := _kind(block, where)) != "text":
            raise RequestError(
                f"'{where}.type' is {shown(kind)}; it takes \"text\"", f"{where}.type"
            )
        _text(block, where)


def _user(blocks: list[Any], place: str, turns: list[Turn], notes: Notes) -> bool:
    """Adds the tool results, then everything else, as vLLM does → whether vLLM reads it so."""
    parts: list[Any] = []
    plain = True
    for position, block in enumerate(blocks):
        where = f"{place}.content[{position}]"
        kind = _kind(block, where)
        if kind == "text":
            parts.append(_text(block, where))
        elif kind == "image":
            parts.append(as_image(block, where))
        elif kind == "tool_result":
            plain &= _result(block, where, turns, notes)
        elif kind == "document" and (text := _document(block)) is not None:
            parts.append({"type": "text", "text": text})
            plain = False
        elif kind == "tool_reference":
            notes.add(where)
            plain = False
        else:
            raise RequestError(
                f"'{where}.type' is {shown(kind)}; {TAKEN} are taken", f"{where}.type"
            )
    if parts:
        one = len(parts) == 1 and parts[0].get("type") == "text"
        turns.append(Turn({"role": "user", "content": parts[0]["text"] if one else parts}, place))
    elif plain and not any(block.get("type") == "tool_result" for block in blocks):
        turns.append(Turn({"role": "user", "content": ""}, place))
        plain = False
    return plain


def _kind(block: Any, where: str) -> Any:
    if not isinstance(block, dict):
        raise RequestError(f"'{where}' is {shown(block)}; it takes an object", where)
    return block.get("type")


def _text(block: Message, where: str) -> Message:
    text = block.get("text")
    if not isinstance(text, str):
        raise RequestError(f"'{where}.text' is {shown(text)}; it takes a string", f"{where}.text")
    return {"type": "text", "text": text}


def _document(block: Message) -> str | None:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "text":
        data = source.get("data")
        return data if isinstance(data, str) else None
    return None


def _result(block: Message, where: str, turns: list[Turn], notes: Notes) -> bool:
    """Adds a result, and its images as a user message, as vLLM does → whether vLLM reads it so."""
    content, call = block.get("content"), block.get("tool_use_id")
    texts, images, plain = [], [], True
    if isinstance(content, list):
        for position, inner in enumerate(content):
            place = f"{where}.content[{position}]"
            kind = _kind(inner, place)
            if kind == "text":
                texts.append(_text(inner, place)["text"])
            elif kind == "image":
                images.append(as_image(inner, place))
            elif kind == "document" and (text := _document(inner)) is not None:
                texts.append(text)
                plain = False
            else:
                notes.add(place)
                plain = False
        content = "\n".join(texts)  # as vLLM joins them
    turns.append(
        Turn({"role": "tool", "tool_call_id": call, "content": content or ""}, where, RESULT_NAMES)
    )
    if images:
        turns.append(Turn({"role": "user", "content": images}, where))
    return plain


def _assistant(
    blocks: list[Any], place: str, turns: list[Turn], rules: Generation, notes: Notes
) -> bool:
    parts: list[Any] = []
    calls: list[Any] = []
    calls_at: list[str] = []
    names = dict(CALL_NAMES)
    plain = True
    for position, block in enumerate(blocks):
        where = f"{place}.content[{position}]"
        kind = _kind(block, where)
        if kind == "text":
            text = _text(block, where)
            if text["text"]:
                names.setdefault("content", f"content[{position}]")
                parts.append(text)
        elif kind == "tool_use":
            check_id(block.get("id"), f"{where}.id")
            check_name(block.get("name"), f"{where}.name")
            arguments = msgspec.json.encode(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
            calls_at.append(where)
        elif kind in THOUGHTS and rules.reasoning:
            continue
        else:
            notes.add(where)
            plain = False
    content: Any = parts or None
    if len(parts) == 1:
        content = parts[0]["text"]
    message: Message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = calls
    turns.append(Turn(message, place, names, tuple(calls_at)))
    return plain


def written(messages: list[Any], turns: list[Turn]) -> list[Any]:
    """Messages that vLLM reads as these turns, with the system messages among `messages`."""
    before = messages[: _end(messages)]
    systems = [message for message in before if message.get("role") == "system"]
    return [*systems, *map(_written, turns)]


def _written(turn: Turn) -> Message:
    message = turn.message
    if turn.role == "tool":
        block = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
        return {"role": "user", "content": [{**block, "content": text_of(message["content"])}]}
    role = "user" if turn.role in SYSTEM_ROLES else turn.role
    content = message.get("content")
    if isinstance(content, str) and not turn.calls:
        return {"role": role, "content": content}
    blocks: list[Any] = []
    parts: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts or []:
        if part["type"] == "image_url":
            source = {"type": "url", "url": part["image_url"]["url"]}
            blocks.append({"type": "image", "source": source})
        else:
            blocks.append(part)
    for call in turn.calls:
        function = call["function"]
        blocks.append(
            {
                "type": "tool_use",
                "id": call["id"],
                "name": function["name"],
                "input": _object(function["arguments"]),
            }
        )
    return {"role": role, "content": blocks}


def _object(arguments: str) -> Any:
    read = msgspec.json.decode(arguments)
    return read if isinstance(read, dict) else {"input": read}

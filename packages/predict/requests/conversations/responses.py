"""The `input` of /v1/responses ↔ turns of a chat.

Promises: pure functions. `read` gives the chat that vLLM makes of the items, and whether vLLM would
read them exactly so; `written` gives items that vLLM reads as exactly these turns. Items of tools
that run at OpenAI, and a model's reasoning, are left out and named in `notes`. Refuses references
to what OpenAI stores: nothing is stored here.
"""

from typing import Any

import msgspec

from predict.errors import RequestError, shown
from predict.requests.conversations.chat import Turn
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.messages import Message, check_id, check_name, text_of
from predict.requests.conversations.notes import Notes

CALLS = ("function_call", "custom_tool_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output")
OUTPUT_NAMES = {"content": "output", "tool_call_id": "call_id"}  # of a result
STORED = ("item_reference",)


def read(items: list[Any], rules: Generation, notes: Notes) -> tuple[list[Turn], bool]:
    turns: list[Turn] = []
    plain = True  # vLLM reads every item as it is read here
    for position, item in enumerate(items):
        place = f"input[{position}]"
        if not isinstance(item, dict):
            raise RequestError(f"'{place}' is {shown(item)}; it takes an object", place)
        plain &= None not in item.values()  # vLLM takes a null for a value
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            plain &= _message(item, place, turns)
        elif kind in CALLS:
            plain &= kind == "function_call" and isinstance(item.get("arguments"), str)
            _call(item, place, turns)
        elif kind in OUTPUTS:
            plain &= _output(item, place, turns)
        elif kind == "reasoning" and rules.reasoning and not item.get("encrypted_content"):
            turns.append(Turn({"role": "assistant", "reasoning": _thought(item)}, place))
        elif kind in STORED or kind is None:
            got = "refers to what was stored" if kind else "has no type and no role"
            raise RequestError(
                f"'{place}' {got}, and nothing is stored here; send the whole conversation in "
                "'input', as messages, function_call and function_call_output",
                place,
            )
        else:
            notes.add(place)
            plain = False
    return turns, plain


def _message(item: Message, place: str, turns: list[Turn]) -> bool:
    """Adds a message → whether vLLM reads it so."""
    message: Message = {key: item[key] for key in ("role", "content") if key in item}
    content = item.get("content")
    turns.append(Turn(message, place))
    if item.get("role") != "assistant":
        return isinstance(content, str)
    if item.get("type") == "message" and isinstance(content, list) and len(content) == 1:
        (part,) = content  # of several parts, vLLM reads the first
        if isinstance(part, dict) and part.get("type") == "output_text":
            message["content"] = part.get("text")
            return None not in part.values()
    return isinstance(content, str)


def _call(item: Message, place: str, turns: list[Turn]) -> None:
    name, arguments = item.get("name"), item.get("arguments")
    if item.get("namespace"):
        name = f"{item['namespace']}__{name}"
    if item.get("type") == "custom_tool_call":
        arguments = msgspec.json.encode({"input": item.get("input") or ""}).decode()
    check_id(item.get("call_id"), f"{place}.call_id")
    check_name(name, f"{place}.name")
    function = {"name": name, "arguments": arguments}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    before = turns[-1] if turns else None
    if before and before.role == "assistant":  # vLLM merges them into one message
        message = {**before.message, "tool_calls": [*before.calls, call]}
        turns[-1] = Turn(message, before.place, before.names, (*before.calls_at, place))
    else:
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        turns.append(Turn(message, place, calls_at=(place,)))


def _output(item: Message, place: str, turns: list[Turn]) -> bool:
    """Adds a result, and its images as a user message → whether vLLM reads it so."""
    output = item.get("output")
    texts, images = output, []
    if isinstance(output, list):
        texts = [part for part in output if not _is_image(part)]
        images = [part for part in output if _is_image(part)]
    message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": texts}
    turns.append(Turn(message, place, OUTPUT_NAMES))
    if images:
        turns.append(Turn({"role": "user", "content": images}, f"{place}.output"))
    return isinstance(output, str)


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_image"


def _thought(item: Message) -> str:
    parts = item.get("content") or item.get("summary") or []
    return "\n".join(part.get("text", "") for part in parts if isinstance(part, dict))


def written(turns: list[Turn], continued: bool) -> list[Any]:
    """Items of `input` that vLLM reads as these turns."""
    items: list[Any] = []
    for turn in turns:
        message = turn.message
        if turn.role == "tool":
            output = text_of(message["content"])
            call = message["tool_call_id"]
            items.append({"type": "function_call_output", "call_id": call, "output": output})
            continue
        if text := text_of(message.get("content")):
            items.append({"role": turn.role, "content": text})
        elif turn.role != "assistant":
            items.append({"role": turn.role, "content": ""})
        if turn.role == "user" and _has_images(message):
            items[-1] = _as_chat(message)
        if thought := message.get("reasoning"):
            part = {"type": "reasoning_text", "text": thought}
            items.append({"type": "reasoning", "id": "rs_0", "summary": [], "content": [part]})
        for call in turn.calls:
            function = call["function"]
            items.append({"type": "function_call", "call_id": call["id"], **function})
    if continued and items:
        items[-1] = {**items[-1], "status": "incomplete"}
    return items


def _has_images(message: Message) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part["type"] == "image_url" for part in content)


def _as_chat(message: Message) -> Message:
    """An item that vLLM hands to the tokenizer as the chat message in it. vLLM's own `input_image`
    gets there too, but mistral-common knows no such part."""
    return {"type": "item_reference", "id": "message", **message}

"""One message of a chat in OpenAI's form → the same message as mistral-common takes it.

Promises: pure functions; a message that needs no change is returned as the same object, so that a
caller can tell by `is` whether anything changed. Refuses, with a `RequestError` that names the
place, content that no tokenizer here has tokens for, or that has no meaning.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from predict.errors import RequestError, shown
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.notes import Notes

Message = dict[str, Any]

SYSTEM_ROLES = ("system", "developer")
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "think")
# What providers and proxies call a model's reasoning.
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks")
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def cleaned(message: Message, place: str, rules: Generation, notes: Notes) -> Message:
    """The message in its plainest form. An assistant message may end up with neither text nor
    calls."""
    role = message.get("role")
    if role == "user":
        return _with_content(message, place, ("text", "image"), notes)
    if role == "assistant":
        return _assistant(message, place, rules, notes)
    if role == "tool":
        return _tool(message, place, notes)
    if role in SYSTEM_ROLES:
        return _with_content(message, place, ("text",), notes)
    if role == "function":
        return _function_result(message, place)
    taken = "system, developer, user, assistant or tool"
    raise RequestError(f"'{place}.role' is {shown(role)}; it takes {taken}", f"{place}.role")


def text_of(content: Any) -> str:
    """The text of a content, its parts joined as mistral-common joins them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n\n".join(part["text"] for part in content if part.get("text"))


def has_text(message: Mapping[str, Any]) -> bool:
    return bool(text_of(message.get("content")))


def _with_content(
    message: Message, place: str, kinds: tuple[str, ...], notes: Notes, empty: Any = None
) -> Message:
    """The message with content that is text, or parts of these kinds."""
    if message.get("name", "") is None:
        message = {key: value for key, value in message.items() if key != "name"}
    content = message.get("content")
    if isinstance(content, str):
        return message
    where = f"{place}.content"
    if content is None and empty is not None:
        return {**message, "content": empty}
    if not isinstance(content, list):
        if content is None:
            got = "is null" if "content" in message else "is missing"
        else:
            got = f"is {shown(content)}"
        raise RequestError(f"'{where}' {got}; it takes a string or a list of parts", where)
    parts = [_part(part, f"{where}[{i}]", kinds, notes) for i, part in enumerate(content)]
    kept = [part for part in parts if part is not None]
    if not kept:
        return {**message, "content": "" if empty is None else empty}
    if len(kept) == len(content) and all(a is b for a, b in zip(kept, content, strict=True)):
        return message
    return {**message, "content": kept}


def _part(part: Any, place: str, kinds: tuple[str, ...], notes: Notes) -> Message | None:
    """A part as text or as an image, in OpenAI's form; None if it is left out."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise RequestError(f"'{place}' is {shown(part)}; it takes an object", place)
    kind = part.get("type")
    if kind is None:
        kind = next((name for name in ("text", "image_url") if name in part), None)
    if kind in TEXT_PARTS:
        text = part.get("text")
        if not isinstance(text, str):
            got = "is missing" if text is None else f"is {shown(text)}"
            raise RequestError(f"'{place}.text' {got}; it takes a string", f"{place}.text")
        return part if part.get("type") == "text" else {"type": "text", "text": text}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind in THOUGHTS:
        notes.add(place)
        return None
    if kind in ("image_url", "input_image", "image") and "image" in kinds:
        return as_image(part, place)
    if kind is None:
        raise RequestError(f"'{place}.type' is missing; it takes {_listed(kinds)}", f"{place}.type")
    here = "" if "image" in kinds or kind not in ("image_url", "input_image", "image") else " here"
    raise RequestError(
        f"'{place}.type' is {shown(kind)}; only {_listed(kinds)} parts are taken{here}",
        f"{place}.type",
    )


def _listed(kinds: tuple[str, ...]) -> str:
    names = {"text": '"text"', "image": '"image_url"'}
    return " and ".join(names[kind] for kind in kinds)


def as_image(part: Message, place: str) -> Message:
    """An image in OpenAI's form, from Mistral's, from the Responses API's or from Anthropic's."""
    image = part.get("image_url")
    if part.get("type") == "image_url" and isinstance(image, dict):
        if isinstance(image.get("url"), str):
            if None not in image.values():
                return part
            given = {name: value for name, value in image.items() if value is not None}
            return {**part, "image_url": given}
        where = f"{place}.image_url.url"
        raise RequestError(f"'{where}' is {shown(image.get('url'))}; it takes a URL", where)
    source = part.get("source")
    if isinstance(image, dict):
        image = image.get("url")
    elif image is None and isinstance(source, dict):
        image = source.get("url")
        if isinstance(source.get("data"), str):
            image = f"data:{source.get('media_type') or 'image/jpeg'};base64,{source['data']}"
    if not isinstance(image, str):
        got = "has a file's id" if part.get("file_id") or _file_id(source) else "has no URL"
        raise RequestError(
            f"'{place}' {got}, and nothing is stored here; send the image as 'image_url', "
            "a data URL or an address",
            place,
        )
    return {"type": "image_url", "image_url": {"url": image}}


def _file_id(source: Any) -> bool:
    return isinstance(source, dict) and bool(source.get("file_id"))


def _assistant(message: Message, place: str, rules: Generation, notes: Notes) -> Message:
    if message.get("tool_calls") or message.get("function_call"):
        message = _with_calls(message, place, notes)
    elif isinstance(message.get("content"), str) and not message.keys() & EXTRAS:
        return message
    drop = []
    for field in THOUGHT_FIELDS:
        if message.get(field) and not rules.reasoning:
            notes.add(f"{place}.{field}")
            drop.append(field)
    if "prefix" in message:
        drop.append("prefix")
    if isinstance(message.get("audio"), dict):
        notes.add(f"{place}.audio")
        drop.append("audio")
    if drop:
        message = {key: value for key, value in message.items() if key not in drop}
    if message.get("content") is None:
        if isinstance(message.get("refusal"), str) and message["refusal"]:
            rest = {key: value for key, value in message.items() if key != "refusal"}
            return {**rest, "content": message["refusal"]}
        return message
    if rules.reasoning and isinstance(message["content"], list):
        return message
    return _with_content(message, place, ("text",), notes)


EXTRAS = {*THOUGHT_FIELDS, "prefix", "audio", "name"}


def _with_calls(message: Message, place: str, notes: Notes) -> Message:
    if not message.get("tool_calls"):  # OpenAI's earlier name
        call = message["function_call"]
        named = call.get("name") if isinstance(call, dict) else None
        rest = {key: value for key, value in message.items() if key != "function_call"}
        calls = [{"id": f"function {named}", "type": "function", "function": call}]
        return {**rest, "tool_calls": [_call(calls[0], f"{place}.function_call", notes)]}
    calls = message["tool_calls"]
    where = f"{place}.tool_calls"
    if not isinstance(calls, list):
        raise RequestError(f"'{where}' is {shown(calls)}; it takes a list", where)
    kept = [_call(call, f"{where}[{i}]", notes) for i, call in enumerate(calls)]
    if all(a is b for a, b in zip(kept, calls, strict=True)):
        return message
    return {**message, "tool_calls": kept}


def _call(call: Any, place: str, notes: Notes) -> Any:
    if not isinstance(call, dict):
        raise RequestError(f"'{place}' is {shown(call)}; it takes an object", place)
    if call.get("type") == "custom" and isinstance(call.get("custom"), dict):
        inner = {"input": call["custom"].get("input") or ""}
        function = {"name": call["custom"].get("name"), "arguments": inner}
        call = {"id": call.get("id"), "type": "function", "function": function}
    function = call.get("function")
    if not isinstance(function, dict):
        where = f"{place}.function"
        raise RequestError(f"'{where}' is {shown(function)}; it takes name and arguments", where)
    check_id(call.get("id"), f"{place}.id")
    check_name(function.get("name"), f"{place}.function.name")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        encoded = msgspec.json.encode({} if arguments is None else arguments).decode()
        function = {**function, "arguments": encoded}
    if function["arguments"] and not _is_object(function["arguments"]):
        notes.add(f"{place}.function.arguments")  # vLLM takes it for {}
    if call.get("type") == "function" and function is call["function"]:
        return call
    return {**call, "type": "function", "function": function}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def check_id(call: Any, place: str) -> None:
    if not isinstance(call, str) or not call:
        got = "is missing" if call is None else f"is {shown(call)}"
        raise RequestError(f"'{place}' {got}; it takes the string its result names", place)


def check_name(name: Any, place: str) -> None:
    if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
        raise RequestError(
            f"'{place}' is {shown(name)}; a function's name has 1 to 64 letters, digits, '_' or "
            "'-'",
            place,
        )


def _tool(message: Message, place: str, notes: Notes) -> Message:
    call = message.get("tool_call_id")
    if not isinstance(call, str) or not call:
        where = f"{place}.tool_call_id"
        got = "is missing" if call is None else f"is {shown(call)}"
        raise RequestError(f"'{where}' {got}; it takes the id of the call it answers", where)
    name = message.get("name")
    if "name" in message and not (isinstance(name, str) and FUNCTION_NAME.fullmatch(name)):
        message = {key: value for key, value in message.items() if key != "name"}
    return _with_content(message, place, ("text",), notes, empty="")


def _function_result(message: Message, place: str) -> Message:
    """The result of a `function_call`, from OpenAI's API before it had tools."""
    check_name(message.get("name"), f"{place}.name")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        where = f"{place}.content"
        raise RequestError(f"'{where}' is {shown(content)}; it takes a string", where)
    name = message["name"]
    return {
        "role": "tool",
        "tool_call_id": f"function {name}",
        "name": name,
        "content": content or "",
    }

"""Tools in any API's form → as a route takes them, and the functions that the model may call.

Promises: pure functions. A tool already in the route's form is returned as the same object; one
that would run at OpenAI or Anthropic, or for which the route has no form, is left out and named in
`notes`.
"""

from collections.abc import Callable
from typing import Any

from predict.errors import RequestError, shown
from predict.requests.conversations.messages import check_name
from predict.requests.conversations.notes import Notes
from predict.requests.routes import ANTHROPIC_ROUTES, CHAT_ROUTES, RESPONSES

Tool = dict[str, Any]


def name_of(tool: Tool) -> Any:
    inner = tool.get("function")
    return inner.get("name") if isinstance(inner, dict) else tool.get("name")


def functions(tool: Tool) -> list[Tool]:
    """The functions of a tool that the model may call, by the names that vLLM shows it."""
    if tool.get("type") != "namespace":
        return [tool]
    inner: Any = tool.get("tools")
    if not isinstance(inner, list):
        return []
    called = [one for one in inner if isinstance(one, dict) and one.get("type") == "function"]
    return [{**one, "name": f"{tool.get('name')}__{one.get('name')}"} for one in called]


def names_of(tools: list[Tool]) -> list[Any]:
    return [name_of(one) for tool in tools for one in functions(tool)]


def _parts(tool: Any, place: str) -> tuple[str, dict[str, Any]] | None:
    """The form of a tool, and the object that describes its function; None if it is not a
    function."""
    if not isinstance(tool, dict):
        raise RequestError(f"'{place}' is {shown(tool)}; it takes an object", place)
    kind = tool.get("type")
    if isinstance(tool.get("function"), dict) and kind in (None, "function"):
        return "chat", tool["function"]
    if isinstance(tool.get("input_schema"), dict) and kind in (None, "custom"):
        return "anthropic", tool
    if kind == "function" and tool.keys() == {"type"}:
        form = '{"type": "function", "function": {"name": …, "parameters": …}}'
        raise RequestError(f"'{place}' has no function; it takes {form}", place)
    if kind == "function" or (kind is None and "name" in tool):
        return "responses", tool
    if kind == "custom":
        return "custom", tool
    if kind == "namespace":
        return "namespace", tool
    return None


def _described(form: str, inner: dict[str, Any], place: str) -> dict[str, Any]:
    """Name, description and parameters of a function, for another form."""
    where = f"{place}.function" if form == "chat" else place
    check_name(inner.get("name"), f"{where}.name")
    key = "input_schema" if form == "anthropic" else "parameters"
    parameters = inner.get(key)
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestError(
            f"'{where}.{key}' is {shown(parameters)}; it takes a JSON schema, an object",
            f"{where}.{key}",
        )
    found = {"name": inner["name"], "description": inner.get("description")}
    found["parameters"] = parameters
    return {name: value for name, value in found.items() if value is not None}


def _function(tool: Any, place: str, notes: Notes) -> tuple[str, dict[str, Any]] | None:
    """A function's form, and its description for another form; None for a tool that only
    /v1/responses takes, which is left out."""
    parts = _parts(tool, place)
    if parts is None or parts[0] in ("custom", "namespace"):
        notes.add(place)
        return None
    return parts[0], _described(*parts, place)


def _for_chat(tool: Any, place: str, notes: Notes) -> Tool | None:
    function = _function(tool, place, notes)
    if function is None:
        return None
    form, described = function
    if form == "chat":
        return tool if tool.get("type") else {**tool, "type": "function"}
    return {"type": "function", "function": described}


def _for_responses(tool: Any, place: str, notes: Notes) -> Tool | None:
    parts = _parts(tool, place)
    if parts is None:
        notes.add(place)
        return None
    form, inner = parts
    if form == "namespace":
        return inner
    if form == "custom":
        chosen = inner.get("format")
        if isinstance(chosen, dict) and chosen.get("type") == "grammar":
            notes.add(f"{place}.format")
            return {name: value for name, value in inner.items() if name != "format"}
        return inner
    described = _described(form, inner, place)
    if form == "responses" and inner.get("type") and {"strict", "parameters"} <= inner.keys():
        return inner
    strict = inner.get("strict")
    described.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "strict": bool(strict), **described}


def _for_anthropic(tool: Any, place: str, notes: Notes) -> Tool | None:
    function = _function(tool, place, notes)
    if function is None:
        return None
    form, described = function
    if form == "anthropic":
        return tool  # type: ignore[no-any-return]
    schema = described.pop("parameters", {"type": "object", "properties": {}})
    return {**described, "input_schema": schema}


READERS: dict[str, Callable[[Any, str, Notes], Tool | None]] = {
    **dict.fromkeys(CHAT_ROUTES, _for_chat),
    RESPONSES: _for_responses,
    **dict.fromkeys(ANTHROPIC_ROUTES, _for_anthropic),
}

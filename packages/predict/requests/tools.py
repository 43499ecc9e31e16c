"""Tools and the choice of one, in any API's form → as vLLM's route takes them.

Promises: pure functions; a request without tools costs nothing. Tools in another API's form are
converted; those that would run at OpenAI or Anthropic are left out and named in `notes`. A choice
that requires a call, of any tool or of a certain one, is enforced on every route. The schemas that
it compiles have no references: vLLM would lose them. Refuses such a choice if the model's tokenizer
has no tools, the request has none, or no tool has the name.
"""

from typing import Any, NamedTuple

from predict.errors import RequestError, shown
from predict.requests.conversations.generations import Generation
from predict.requests.conversations.notes import Notes
from predict.requests.json_schemas import Resolved, inlined
from predict.requests.loosening import loosened
from predict.requests.routes import ANTHROPIC_ROUTES, CHAT_ROUTES, RESPONSES
from predict.requests.tool_forms import READERS, Tool, functions, name_of, names_of

Body = dict[str, Any]


class Choice(NamedTuple):
    mode: str | None  # "auto", "none", "required" or "named"; None if not given
    name: str = ""
    allowed: tuple[str, ...] | None = None  # names of the tools that may be called


def settled(path: str, body: Body, rules: Generation, notes: Notes) -> Body:
    """The body with its tools in the route's form; the same object if they already are."""
    if not ("tools" in body or "tool_choice" in body or "functions" in body):
        return body
    if path not in READERS:
        return body
    for name, instead in (("functions", "tools"), ("function_call", "tool_choice")):
        if path in CHAT_ROUTES and body.get(name) not in (None, [], "none", "auto"):
            raise RequestError(
                f"'{name}' is not taken any more, as on OpenAI's newer models; send '{instead}'",
                name,
            )
    tools = body.get("tools")
    choice = _choice(body.get("tool_choice"))
    if tools is not None and not isinstance(tools, list):
        raise RequestError(f"'tools' is {shown(tools)}; it takes a list", "tools")
    read = [READERS[path](tool, f"tools[{i}]", notes) for i, tool in enumerate(tools or ())]
    kept = [tool for tool in read if tool is not None]
    if choice.allowed is not None:
        kept = _allowed(choice.allowed, kept, tools or [])
    choice = _found(choice, kept)
    _check(choice, kept, rules)
    if not rules.tools or not kept:
        if kept:
            notes.add("tools")
        gone = ("tools", "tool_choice")
        return {name: value for name, value in body.items() if name not in gone}
    changed = len(kept) != len(tools or ()) or any(
        a is not b for a, b in zip(kept, tools or (), strict=False)
    )
    body = {**body, "tools": kept} if changed else body
    if choice.mode in ("required", "named"):
        body = _enforced(path, body, choice, notes)
    return _with_choice(path, body, choice)


def _found(choice: Choice, tools: list[Tool]) -> Choice:
    """The choice, with the full name of a tool that it names without its namespace."""
    names = names_of(tools) if choice.mode == "named" else []
    behind = [name for name in names if str(name).endswith(f"__{choice.name}")]
    one = len(behind) == 1 and choice.name not in names
    return choice._replace(name=behind[0]) if one else choice


def _allowed(allowed: tuple[str, ...], kept: list[Tool], sent: list[Any]) -> list[Tool]:
    """The tools that are allowed; of a namespace, the allowed tools in it."""
    known = [name_of(tool) for tool in sent if isinstance(tool, dict)]
    known += names_of([tool for tool in sent if isinstance(tool, dict)])
    if unknown := [name for name in allowed if name not in known]:
        where = "tool_choice"
        raise RequestError(
            f"'{where}' allows {shown(unknown[0])}, which is not among 'tools'; they are "
            f"{shown(known)}",
            where,
        )
    found = []
    for tool in kept:
        called = functions(tool)
        if name_of(tool) in allowed or all(name_of(one) in allowed for one in called):
            found.append(tool)
        elif some := [name_of(one) for one in called if name_of(one) in allowed]:
            inner = [one for one in tool["tools"] if f"{tool['name']}__{one.get('name')}" in some]
            found.append({**tool, "tools": inner})
    return found


def _choice(value: Any) -> Choice:
    where = "tool_choice"
    if value is None:
        return Choice(None)
    mode = value.get("type") if isinstance(value, dict) else value
    if isinstance(value, dict) and mode in ("function", "tool", "custom"):
        inner = value.get("function") or value.get("custom") or value
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str):
            raise RequestError(f"'{where}' names no tool; it takes the name of one", where)
        return Choice("named", name)
    if isinstance(value, dict) and mode == "allowed_tools":
        inner = value.get("allowed_tools") or value
        listed = inner.get("tools") if isinstance(inner, dict) else None
        if isinstance(listed, list) and inner.get("mode") in ("auto", "required"):
            names = [name_of(tool) for tool in listed if isinstance(tool, dict)]
            named = tuple(name for name in names if isinstance(name, str))
            return Choice(inner["mode"], allowed=named)
    if mode == "any":  # Mistral's and Anthropic's word
        mode = "required"
    if mode not in ("auto", "none", "required"):
        raise RequestError(
            f"'{where}' is {shown(value)}; it takes auto, none, required or a tool's name",
            where,
        )
    return Choice(mode)


def _check(choice: Choice, tools: list[Tool], rules: Generation) -> None:
    if choice.mode not in ("required", "named"):
        return
    asked = f'"{choice.name[:60]}"' if choice.mode == "named" else '"required"'
    where = "tool_choice"
    if not rules.tools:
        raise RequestError(
            f"'{where}' is {asked}, and this model's tokenizer has no tools; leave it out, or use "
            "'response_format' for an answer in JSON",
            where,
        )
    if not tools:
        raise RequestError(f"'{where}' is {asked}, and 'tools' has none to call; send one", where)
    names = names_of(tools)
    if choice.mode == "named" and choice.name not in names:
        raise RequestError(
            f"'{where}' is {asked}, which is not among 'tools'; they are {shown(names)}", where
        )


def _with_choice(path: str, body: Body, choice: Choice) -> Body:
    """The body with the choice in the route's form."""
    given = body.get("tool_choice")
    if choice.mode is None:
        if "tool_choice" in body:  # without a stream, vLLM takes a null for "none"
            return {name: value for name, value in body.items() if name != "tool_choice"}
        return body
    form: Any = choice.mode
    if path in ANTHROPIC_ROUTES:
        kind = {"required": "any", "named": "tool"}.get(choice.mode, choice.mode)
        form = {"type": kind, "name": choice.name} if kind == "tool" else {"type": kind}
        if isinstance(given, dict) and given.get("disable_parallel_tool_use") is not None:
            form["disable_parallel_tool_use"] = given["disable_parallel_tool_use"]
    elif choice.mode == "named" and path == RESPONSES:
        form = "required"  # of the one tool that the schema allows (_enforced)
    elif choice.mode == "named":
        form = {"type": "function", "function": {"name": choice.name}}
    return body if given == form else {**body, "tool_choice": form}


def _enforced(path: str, body: Body, choice: Choice, notes: Notes) -> Body:
    """The body from which vLLM compiles a schema that makes the answer a tool call."""
    tools, resolved = [], Resolved()
    for position, tool in enumerate(body["tools"]):
        where = f"tools[{position}]"
        if choice.mode == "required" or choice.name in names_of([tool]):
            tools.append(_compilable(tool, where, notes, resolved))
        else:
            tools.append(tool)
    if any(a is not b for a, b in zip(tools, body["tools"], strict=True)):
        body = {**body, "tools": tools}
    if path != RESPONSES:
        return body
    # vLLM makes this schema for chats but not for this route; its parser reads the answer on both.
    if body.get("structured_outputs") is not None:
        raise RequestError(
            "'tool_choice' and 'structured_outputs' both hold the answer to a form; send one",
            "structured_outputs",
        )
    text = body.get("text")
    if isinstance(text, dict) and text.get("format") is not None:
        if text["format"] != {"type": "text"}:
            notes.add("text.format")
        text = {name: value for name, value in text.items() if name != "format"}
        body = {**body, "text": text}
    called = [one for tool in tools for one in functions(tool)]
    called = [one for one in called if choice.mode == "required" or one.get("name") == choice.name]
    most = {"maxItems": 1} if choice.mode == "named" else {}
    if body.get("parallel_tool_calls") is False:
        most = {"maxItems": 1}
    options = [_call_schema(tool) for tool in called]
    schema = {"type": "array", "minItems": 1, **most, "items": {"anyOf": options}}
    return {**body, "structured_outputs": {"json": schema}}


def _call_schema(tool: Tool) -> dict[str, Any]:
    arguments = tool.get("parameters") or {"type": "object"}
    if tool.get("type") == "custom":
        arguments = {"type": "object", "properties": {"input": {"type": "string"}}}
        arguments["required"] = ["input"]
    name = {"type": "string", "enum": [tool.get("name")]}
    properties = {"name": name, "arguments": arguments}
    required = ["name", "arguments"]
    return {"type": "object", "properties": properties, "required": required}


def _compilable(tool: Tool, where: str, notes: Notes, resolved: Resolved) -> Tool:
    if isinstance(tool.get("function"), dict):
        function = tool["function"]
        schema = _plain_schema(function, "parameters", f"{where}.function", notes, resolved)
        same = schema is function.get("parameters")
        return tool if same else {**tool, "function": {**function, "parameters": schema}}
    if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
        inner = [
            _compilable(one, f"{where}.tools[{i}]", notes, resolved)
            if isinstance(one, dict)
            else one
            for i, one in enumerate(tool["tools"])
        ]
        same = all(a is b for a, b in zip(inner, tool["tools"], strict=True))
        return tool if same else {**tool, "tools": inner}
    key = "input_schema" if "input_schema" in tool else "parameters"
    schema = _plain_schema(tool, key, where, notes, resolved)
    return tool if schema is tool.get(key) else {**tool, key: schema}


def _plain_schema(
    holder: dict[str, Any], key: str, where: str, notes: Notes, resolved: Resolved
) -> Any:
    schema = holder.get(key)
    if not isinstance(schema, dict):
        return schema
    place = f"{where}.{key}"
    return loosened(inlined(schema, place, resolved), place, notes)

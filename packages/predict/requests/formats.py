"""The form of an answer, in any API's terms → as vLLM's route takes it.

Promises: pure functions. A schema beside `json_object` (huggingface_hub, Together, Fireworks,
llama.cpp) constrains the answer like a `json_schema`. What xgrammar cannot follow is removed from
schemas and named in `notes`, or refused (loosening.py).
"""

from typing import Any

from predict.errors import RequestError, shown
from predict.requests.conversations.notes import Notes
from predict.requests.json_schemas import pointed
from predict.requests.loosening import loosened
from predict.requests.routes import ANTHROPIC_ROUTES, RESPONSES
from predict.requests.structured_outputs import opened

Body = dict[str, Any]
NAME = "answer"  # for a schema without one
KINDS = ("text", "json_object", "json_schema", "structural_tag")  # in vLLM's chats


def settled(path: str, body: Body, notes: Notes) -> Body:
    """The body with its response format as vLLM takes it; the same object if it already is."""
    if isinstance(body.get("response_format"), dict):
        body = _with(body, "response_format", _nested(body["response_format"], notes))
    if isinstance(body.get("structured_outputs"), dict):
        outputs = opened(body)["structured_outputs"]
        if isinstance(outputs.get("json"), dict):
            schema = _compilable(outputs["json"], "structured_outputs.json", notes)
            if schema is not outputs["json"]:
                body = {**body, "structured_outputs": {**outputs, "json": schema}}
    if path == RESPONSES and isinstance(body.get("text"), dict):
        text = body["text"]
        if isinstance(text.get("format"), dict):
            text = _with(text, "format", _flat(text["format"], "text.format", notes))
            body = _with(body, "text", text)
    if path in ANTHROPIC_ROUTES and body.keys() & {"output_format", "output_config"}:
        body = _anthropic(body, notes)
    return body


def _compilable(schema: Body, place: str, notes: Notes) -> Any:
    return pointed(loosened(schema, place, notes), place)


def _with(holder: Body, name: str, value: Any) -> Body:
    return holder if holder.get(name) is value else {**holder, name: value}


def _nested(chosen: Body, notes: Notes) -> Body:
    """A `response_format` of chats and completions."""
    kind = chosen.get("type")
    inner = chosen.get("json_schema")
    if kind in ("json_object", "json", "json_schema") and not isinstance(inner, dict):
        schema = _first(chosen, "schema", "value", "json_schema")
        if isinstance(schema, dict) and schema:
            schema = _compilable(schema, "response_format.schema", notes)
            return {"type": "json_schema", "json_schema": {"name": NAME, "schema": schema}}
        if kind == "json_object" or schema is not None:
            return chosen
        return _any_json(chosen, notes)
    if kind is not None and kind not in KINDS:
        where = "response_format.type"
        raise RequestError(
            f"'{where}' is {shown(kind)}; it is one of {', '.join(KINDS)}; "
            "'structured_outputs' takes a regex, a choice or a grammar",
            where,
        )
    if kind != "json_schema" or not isinstance(inner, dict):
        return chosen
    if not isinstance(inner.get("schema"), dict):
        if "schema" in inner or "name" in inner or not inner:
            return _any_json(chosen, notes) if inner.get("schema") is None else chosen
        inner = {"name": NAME, "schema": inner}  # the schema itself
    schema = _compilable(inner["schema"], "response_format.json_schema.schema", notes)
    inner = _with(inner, "schema", schema)
    return _with(chosen, "json_schema", inner if inner.get("name") else {**inner, "name": NAME})


def _any_json(chosen: Body, notes: Notes) -> Body:
    """For a request that promises a schema and has none: any JSON."""
    if chosen["type"] == "json_schema":
        notes.add("response_format.json_schema")
    return {"type": "json_object"}


def _flat(chosen: Body, place: str, notes: Notes) -> Body:
    """The `text.format` of /v1/responses."""
    kind = chosen.get("type")
    inner = chosen.get("json_schema")
    if isinstance(inner, dict):
        chosen = {"type": "json_schema", **inner}
    schema = _first(chosen, "schema", "value")
    if kind in ("json_object", "json_schema") and isinstance(schema, dict) and schema:
        schema = _compilable(schema, f"{place}.schema", notes)
        if kind == "json_object" or not chosen.get("name"):
            return {"type": "json_schema", "name": chosen.get("name") or NAME, "schema": schema}
        return _with(chosen, "schema", schema)
    return chosen


def _anthropic(body: Body, notes: Notes) -> Body:
    if isinstance(body.get("output_format"), dict):  # its name in the beta
        config = {**(body.get("output_config") or {}), "format": body["output_format"]}
        body = {name: value for name, value in body.items() if name != "output_format"}
        body["output_config"] = config
    settings = body.get("output_config")
    if isinstance(settings, dict) and isinstance(settings.get("format"), dict):
        chosen = settings["format"]
        if isinstance(chosen.get("schema"), dict):
            schema = _compilable(chosen["schema"], "output_config.format.schema", notes)
            settings = _with(settings, "format", _with(chosen, "schema", schema))
            body = _with(body, "output_config", settings)
    return body


def _first(holder: Body, *names: str) -> Any:
    return next((holder[name] for name in names if holder.get(name) is not None), None)

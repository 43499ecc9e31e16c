"""Requests in the forms that many clients use, and the stand-ins' answers to their meaning."""

import json
from typing import Any

import pytest

from local.standins.corpus import load_dialogues
from tests.support.container import Running

CHAT, RESPONSES, ANTHROPIC = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TOOLS = load_dialogues()["tools"]
FUNCTION = TOOLS["definitions"][0]["function"]
QUESTION: dict[str, Any] = {"role": "user", "content": TOOLS["question"]}
WIND: dict[str, Any] = {"role": "user", "content": "What is the Mistral wind?"}
START = "The Mistral is a strong"
LIMIT = 120
FLAT = {"type": "function", "strict": False, **FUNCTION}
MESSAGES_TOOL = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
NAME = FUNCTION["name"]

with_tools = pytest.mark.parametrize("container", ["mistral-7b", "pixtral-12b"], indirect=True)
mistral = pytest.mark.parametrize("container", ["mistral-7b"], indirect=True)
mixtral = pytest.mark.parametrize("container", ["mixtral-8x7b"], indirect=True)
pixtral = pytest.mark.parametrize("container", ["pixtral-12b"], indirect=True)


def ask(container: Running, path: str, **body: Any) -> tuple[Any, list[str]]:
    """The answer, and the parts of the request that were ignored."""
    limit = {RESPONSES: "max_output_tokens"}.get(path, "max_tokens")
    body = {"model": container.card.name, limit: LIMIT, "temperature": 0, **body}
    response = container.http.post(path, json=body)
    assert response.status_code == 200, response.text
    named = response.headers.get("x-ignored-parameters", "")
    return response.json(), named.split(", ") if named else []


def said(answer: Any) -> str:
    """The text of an answer from any route."""
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    if "output" in answer:
        return "".join(part["text"] for item in answer["output"] for part in item["content"])
    return "".join(block["text"] for block in answer["content"])


def call(name: str = "call_abc123") -> dict[str, Any]:
    made = {**TOOLS["call"], "arguments": json.dumps(TOOLS["call"]["arguments"])}
    return {"id": name, "type": "function", "function": made}


def called(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(name: str = "call_abc123") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": TOOLS["result"]}


def wind(container: Running) -> str:
    return str(ask(container, CHAT, messages=[WIND])[0]["choices"][0]["message"]["content"])

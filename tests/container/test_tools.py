"""Tool calls, on the models whose card has tools."""

import json
from typing import Any

from local.standins.corpus import load_dialogues
from tests.support.container import Running, with_tools

TOOLS = load_dialogues()["tools"]
QUESTION: Any = {"role": "user", "content": TOOLS["question"]}


@with_tools
def test_a_tool_is_called_and_its_result_used(container: Running) -> None:
    messages: list[Any] = [QUESTION]
    ask: dict[str, Any] = {"model": container.card.name, "tools": TOOLS["definitions"]}
    choice = container.client.chat.completions.create(messages=messages, **ask).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == TOOLS["call"]["name"]
    assert json.loads(call.function.arguments) == TOOLS["call"]["arguments"]

    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": TOOLS["result"]},
    ]
    final = container.client.chat.completions.create(messages=messages, **ask).choices[0]
    assert final.message.content == TOOLS["answer"]


@with_tools
def test_a_tool_call_streams(container: Running) -> None:
    stream = container.client.chat.completions.create(
        model=container.card.name, messages=[QUESTION], tools=TOOLS["definitions"], stream=True
    )
    name, arguments = "", ""
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.function
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == TOOLS["call"]["name"]
    assert json.loads(arguments) == TOOLS["call"]["arguments"]

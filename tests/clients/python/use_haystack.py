"""haystack: its generators for chat and for the Responses API, with a tool."""

from harness import DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret

weather = Tool(
    name="get_weather", description=DESCRIPTION, parameters=SCHEMA, function=lambda city: RESULT
)


def ask(kind, *messages, tools=None):
    generator = kind(
        model=MODEL, api_base_url=f"{URL}/v1", api_key=Secret.from_token("none"), tools=tools
    )
    return generator.run(list(messages))["replies"][0]


def tool(kind):
    question = ChatMessage.from_user(WEATHER)
    called = ask(kind, question, tools=[weather])
    result = ChatMessage.from_tool(RESULT, origin=called.tool_calls[0])
    return ask(kind, question, called, result, tools=[weather]).text


run(
    plain=lambda: ask(OpenAIChatGenerator, ChatMessage.from_user(WIND)).text,
    tool=lambda: tool(OpenAIChatGenerator),
    responses=lambda: ask(OpenAIResponsesChatGenerator, ChatMessage.from_user(WIND)).text,
)

"""openai-agents: an agent with a tool, over the Responses API and over chat."""

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from harness import MODEL, RESULT, URL, WEATHER, WIND, run
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
chat = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
responses = OpenAIResponsesModel(model=MODEL, openai_client=client)


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return RESULT


def ask(model, text, *tools):
    agent = Agent(name="a", model=model, tools=list(tools))
    return Runner.run_sync(agent, text, max_turns=4).final_output


run(
    plain=lambda: ask(chat, WIND),
    tool=lambda: ask(chat, WEATHER, get_weather),
    responses=lambda: ask(responses, WIND),
    responses_tool=lambda: ask(responses, WEATHER, get_weather),
)

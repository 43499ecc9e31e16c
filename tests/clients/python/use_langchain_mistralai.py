"""langchain-mistralai: a chat model with Mistral's own names, its tools, and an agent."""

from harness import DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_mistralai import ChatMistralAI

model = ChatMistralAI(
    model_name=MODEL, base_url=f"{URL}/v1", api_key="none", max_retries=0, random_seed=5
)
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
with_tools = model.bind_tools([{"type": "function", "function": function}])


def plain():
    return model.invoke(WIND).content


def stream():
    return "".join(chunk.content for chunk in model.stream(WIND))


def finish(message):
    call = message.tool_calls[0]
    result = ToolMessage(RESULT, tool_call_id=call["id"])
    return with_tools.invoke([HumanMessage(WEATHER), message, result]).content


def tool():
    return finish(with_tools.invoke(WEATHER))


def tool_stream():
    whole = None
    for chunk in with_tools.stream(WEATHER):
        whole = chunk if whole is None else whole + chunk
    return finish(whole)


def history():
    call = {"name": "get_weather", "args": {"city": "Genoa"}, "id": "call_abc123"}
    messages = [
        HumanMessage(WEATHER),
        AIMessage("", tool_calls=[call]),
        ToolMessage(RESULT, tool_call_id=call["id"]),
    ]
    return with_tools.invoke(messages).content


def agent():
    from langchain.agents import create_agent
    from langchain_core.tools import tool as as_tool

    @as_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return RESULT

    made = create_agent(model, [get_weather])
    return made.invoke({"messages": [HumanMessage(WEATHER)]})["messages"][-1].content


run(plain=plain, stream=stream, tool=tool, tool_stream=tool_stream, history=history, agent=agent)

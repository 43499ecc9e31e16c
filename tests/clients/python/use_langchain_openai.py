"""langchain-openai: a chat model, its tools, structured output, and an agent."""

from harness import DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

model = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key="none", max_retries=0)
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
with_tools = model.bind_tools([{"type": "function", "function": function}])


class City(BaseModel):
    name: str
    people: int


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


def structured():
    limited = ChatOpenAI(model=MODEL, base_url=f"{URL}/v1", api_key="none", max_tokens=200)
    return sorted(limited.with_structured_output(City).invoke(WIND).model_dump())


def history():
    call = {"name": "get_weather", "args": {"city": "Genoa"}, "id": "functions.get_weather:0"}
    messages = [
        HumanMessage(WEATHER),
        AIMessage("Let me look.", tool_calls=[call]),
        ToolMessage(RESULT, tool_call_id=call["id"]),
        AIMessage("It is 14 degrees in"),
    ]
    return f"It is 14 degrees in{with_tools.invoke(messages).content}"


def agent():
    from langchain.agents import create_agent
    from langchain_core.tools import tool as as_tool

    @as_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        return RESULT

    made = create_agent(model, [get_weather])
    return made.invoke({"messages": [HumanMessage(WEATHER)]})["messages"][-1].content


run(
    plain=plain,
    stream=stream,
    tool=tool,
    tool_stream=tool_stream,
    structured=structured,
    history=history,
    agent=agent,
)

"""mistralai: chat, streams, tools with Mistral's own names, and its prefix."""

from harness import COLOUR, DESCRIPTION, IMAGE, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run

try:
    from mistralai.client import Mistral
except ImportError:
    from mistralai import Mistral

client = Mistral(api_key="none", server_url=URL)
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
tools = [{"type": "function", "function": function}]
question = {"role": "user", "content": WEATHER}


def ask(messages, **more):
    return client.chat.complete(model=MODEL, messages=messages, **more).choices[0].message


def plain():
    messages = [{"role": "user", "content": WIND}]
    return ask(messages, random_seed=5, safe_prompt=False).content


def stream():
    chunks = client.chat.stream(model=MODEL, messages=[{"role": "user", "content": WIND}])
    return "".join(chunk.data.choices[0].delta.content or "" for chunk in chunks)


def finish(message, call):
    assert call.function.name == "get_weather"
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": RESULT}
    return ask([question, message, result], tools=tools).content


def tool():
    message = ask([question], tools=tools)
    return finish(message, message.tool_calls[0])


def tool_stream():
    name, call_id, arguments = "", "", ""
    for chunk in client.chat.stream(model=MODEL, messages=[question], tools=tools):
        for call in chunk.data.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            call_id = call.id if call.id and call.id != "null" else call_id
            arguments += call.function.arguments
    made = {"id": call_id, "function": {"name": name, "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": call_id, "content": RESULT}
    messages = [question, {"role": "assistant", "content": "", "tool_calls": [made]}, result]
    return ask(messages, tools=tools).content


def forced():
    return ask([question], tools=tools, tool_choice="any").tool_calls[0].function.name


def history():
    call = {"id": "call_1", "function": {"name": "get_weather", "arguments": {"city": "Genoa"}}}
    start = "It is 14 degrees in"
    messages = [
        question,
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
        {"role": "assistant", "content": start, "prefix": True},
    ]
    return start + ask(messages, tools=tools).content


def image():
    parts = [{"type": "text", "text": COLOUR}, {"type": "image_url", "image_url": IMAGE}]
    return ask([{"role": "user", "content": parts}]).content


run(
    plain=plain,
    stream=stream,
    tool=tool,
    tool_stream=tool_stream,
    forced=forced,
    history=history,
    image=image,
)

"""litellm: as an OpenAI-compatible server, and by its adapter for Anthropic's messages."""

import litellm
from harness import DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run

litellm.telemetry = False
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
tools = [{"type": "function", "function": function}]
question = {"role": "user", "content": WEATHER}
server = {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "none", "num_retries": 0}


def ask(messages, **more):
    return litellm.completion(messages=messages, **server, **more)


def plain():
    return ask([{"role": "user", "content": WIND}]).choices[0].message.content


def stream():
    chunks = ask([{"role": "user", "content": WIND}], stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def finish(message):
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    answer = ask([question, message.model_dump(), result], tools=tools)
    return answer.choices[0].message.content


def tool():
    return finish(ask([question], tools=tools).choices[0].message)


def tool_stream():
    chunks = list(ask([question], tools=tools, stream=True))
    return finish(litellm.stream_chunk_builder(chunks, messages=[question]).choices[0].message)


def structured():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = ask([{"role": "user", "content": WIND}], response_format=wanted, max_tokens=50)
    return answer.choices[0].message.content


def history():
    call = {"name": "get_weather", "arguments": '{"city": "Genoa"}'}
    made = [{"id": "call_abc123", "type": "function", "function": call}]
    start = "It is 14 degrees in"
    messages = [
        question,
        {"role": "assistant", "content": "Let me look.", "tool_calls": made},
        {"role": "tool", "tool_call_id": "call_abc123", "content": RESULT},
        {"role": "assistant", "content": start},
    ]
    return start + ask(messages, tools=tools).choices[0].message.content


def mistral():
    answer = litellm.completion(
        model=f"mistral/{MODEL}",
        api_base=f"{URL}/v1",
        api_key="none",
        messages=[{"role": "user", "content": WIND}],
        seed=5,
        num_retries=0,
    )
    return answer.choices[0].message.content


run(
    plain=plain,
    stream=stream,
    tool=tool,
    tool_stream=tool_stream,
    structured=structured,
    history=history,
    mistral=mistral,
)

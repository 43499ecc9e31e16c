"""huggingface_hub: InferenceClient, streamed, with a tool and with its own form of a schema."""

from harness import DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run
from huggingface_hub import InferenceClient

client = InferenceClient(base_url=f"{URL}/v1", api_key="none")
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
tools = [{"type": "function", "function": function}]
question = {"role": "user", "content": WEATHER}


def ask(messages, **more):
    answer = client.chat_completion(messages=messages, model=MODEL, max_tokens=200, **more)
    return answer.choices[0].message


def stream():
    chunks = client.chat_completion(
        messages=[{"role": "user", "content": WIND}], model=MODEL, max_tokens=200, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def tool():
    said = ask([question], tools=tools)
    call = said.tool_calls[0]
    made = {"name": call.function.name, "arguments": call.function.arguments}
    messages = [
        question,
        {
            "role": "assistant",
            "tool_calls": [{"id": call.id, "type": "function", "function": made}],
        },
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    return ask(messages, tools=tools).content


def structured():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_object", "value": schema}
    return ask([{"role": "user", "content": WIND}], response_format=wanted).content


run(
    plain=lambda: ask([{"role": "user", "content": WIND}]).content,
    stream=stream,
    tool=tool,
    structured=structured,
)

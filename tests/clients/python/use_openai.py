"""openai: chat, streams, parse, responses, and a history of another model's."""

from harness import COLOUR, DESCRIPTION, IMAGE, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
function = {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}
tools = [{"type": "function", "function": function}]
flat = [{"type": "function", **function}]
question = {"role": "user", "content": WEATHER}


class City(BaseModel):
    name: str
    people: int


def plain():
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": WIND}]
    )
    return answer.choices[0].message.content


def stream():
    chunks = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": WIND}], stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def finish(message):
    call = message.tool_calls[0]
    assert call.function.name == "get_weather"
    messages = [
        question,
        message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    return answer.choices[0].message.content


def tool():
    answer = client.chat.completions.create(model=MODEL, messages=[question], tools=tools)
    return finish(answer.choices[0].message)


def tool_stream():
    with client.chat.completions.stream(model=MODEL, messages=[question], tools=tools) as events:
        for _ in events:
            pass
        return finish(events.get_final_completion().choices[0].message)


def structured():
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": WIND}],
        response_format=City,
        max_tokens=200,
    )
    return sorted(answer.choices[0].message.parsed.model_dump())


def history():
    call = {"name": "get_weather", "arguments": '{"city": "Genoa"}'}
    messages = [
        question,
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "call_abc123", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_abc123", "content": RESULT},
        {"role": "assistant", "content": "It is 14 degrees in"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    return f"It is 14 degrees in{answer.choices[0].message.content}"


def responses():
    text = [{"type": "input_text", "text": WIND}]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": text}])
    return answer.output_text


def responses_tool():
    answer = client.responses.create(model=MODEL, input=[question], tools=flat)
    call = answer.output[-1]
    items = [
        question,
        *answer.output,
        {"type": "function_call_output", "call_id": call.call_id, "output": RESULT},
    ]
    return client.responses.create(model=MODEL, input=items, tools=flat).output_text


def responses_parse():
    answer = client.responses.parse(
        model=MODEL, input=WIND, text_format=City, max_output_tokens=200
    )
    return sorted(answer.output_parsed.model_dump())


def image():
    parts = [
        {"type": "text", "text": COLOUR},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ]
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )
    return answer.choices[0].message.content


def image_responses():
    parts = [
        {"type": "input_text", "text": COLOUR},
        {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
    ]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}])
    return answer.output_text


run(
    plain=plain,
    stream=stream,
    tool=tool,
    tool_stream=tool_stream,
    structured=structured,
    history=history,
    responses=responses,
    responses_tool=responses_tool,
    responses_structured=responses_parse,
    image=image,
    image_responses=image_responses,
)

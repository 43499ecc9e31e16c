"""anthropic: messages, streams, tools, prefill, and thinking of another model's."""

from anthropic import Anthropic
from harness import COLOUR, DESCRIPTION, IMAGE, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run

client = Anthropic(base_url=URL, api_key="none", max_retries=0)
tools = [{"name": "get_weather", "description": DESCRIPTION, "input_schema": SCHEMA}]
question = {"role": "user", "content": WEATHER}


def ask(messages, **more):
    return client.messages.create(model=MODEL, max_tokens=100, messages=messages, **more)


def text(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def plain():
    return text(ask([{"role": "user", "content": WIND}]))


def stream():
    messages = [{"role": "user", "content": WIND}]
    with client.messages.stream(model=MODEL, max_tokens=100, messages=messages) as events:
        return "".join(events.text_stream)


def finish(answer):
    call = answer.content[-1]
    assert call.name == "get_weather"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    said = {"role": "assistant", "content": answer.content}
    return text(ask([question, said, {"role": "user", "content": [result]}], tools=tools))


def tool():
    return finish(ask([question], tools=tools))


def tool_stream():
    with client.messages.stream(
        model=MODEL, max_tokens=100, messages=[question], tools=tools
    ) as events:
        return finish(events.get_final_message())


def forced():
    answer = ask([question], tools=tools, tool_choice={"type": "any"})
    return answer.content[-1].name


def history():
    said = [
        {"type": "thinking", "thinking": "Hm.", "signature": "a"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_01A", "name": "get_weather", "input": {"city": "Genoa"}},
    ]
    result = {"type": "tool_result", "tool_use_id": "toolu_01A", "content": RESULT}
    start = "It is 14 degrees in"
    messages = [
        question,
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": start},
    ]
    return start + text(ask(messages, tools=tools))


def image():
    kind, _, data = IMAGE.removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": kind, "data": data}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": COLOUR}]
    return text(ask([{"role": "user", "content": parts}]))


run(
    plain=plain,
    stream=stream,
    tool=tool,
    tool_stream=tool_stream,
    forced=forced,
    history=history,
    image=image,
)

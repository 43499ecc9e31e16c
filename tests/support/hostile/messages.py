"""Hostile messages, message parts and tools."""

import base64
from typing import Any

from tests.support.hostile.case import Body, tool, user

USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL = tool(FUNCTION)
CALL = {"id": "123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDAT"
    b"x\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82"
).decode()
IMAGE: Body = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}

MESSAGE_LISTS: dict[str, Any] = {
    "none": [],
    "a null": None,
    "a text": "hi",
    "a number": 5,
    "an object": USER,
    "texts": ["hi"],
    "lists": [[]],
    "a null inside": [None],
    "nothing inside": [{}],
    "no role": [{"content": "hi"}],
    "no content": [{"role": "user"}],
    "a role that is null": [{"role": None, "content": "hi"}],
    "a role that is a number": [{"role": 5, "content": "hi"}],
    "an unknown role": [{"role": "pirate", "content": "hi"}],
    "an empty role": [{"role": "", "content": "hi"}],
    "a content that is null": user(None),
    "a content that is a number": user(5),
    "a content that is an object": user({"text": "hi"}),
    "an empty content": user(""),
    "no parts": user([]),
    "an empty part": user([{}]),
    "a part that is null": user([None]),
    "a part that is a text": user(["hi"]),
    "a part that is a list": user([[]]),
    "parts within parts": [
        {"role": "user", "content": [{"type": "text", "text": [{"type": "text"}]}]}
    ],
    "only the assistant": [{"role": "assistant", "content": "hi"}],
    "only the system": [{"role": "system", "content": "hi"}],
    "the assistant first": [{"role": "assistant", "content": "hi"}, USER],
    "the assistant twice": [USER, *[{"role": "assistant", "content": "hi"}] * 2, USER],
    "the system last": [USER, {"role": "system", "content": "hi"}],
    "a developer": [{"role": "developer", "content": "hi"}, USER],
    "a function": [{"role": "function", "name": "f", "content": "hi"}],
    "a tool without an id": [USER, {"role": "tool", "content": "hi"}],
    "a tool that nobody called": [
        USER,
        {"role": "tool", "tool_call_id": "123456789", "content": "x"},
    ],
    "a tool with a long id": [
        USER,
        {"role": "assistant", "tool_calls": [{**CALL, "id": "x" * 5000}]},
        {"role": "tool", "tool_call_id": "x" * 5000, "content": "x"},
    ],
    "a tool with a number for an id": [USER, {"role": "tool", "tool_call_id": 5, "content": "x"}],
    "calls that are a number": [USER, {"role": "assistant", "tool_calls": 5}, USER],
    "calls that are an object": [USER, {"role": "assistant", "tool_calls": {}}, USER],
    "calls of nothing": [USER, {"role": "assistant", "tool_calls": [{}]}, USER],
    "calls that are null": [USER, {"role": "assistant", "tool_calls": [None]}, USER],
    "calls without a function": [
        USER,
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]},
        USER,
    ],
    "arguments that are not JSON": [
        USER,
        {
            "role": "assistant",
            "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}],
        },
        {"role": "tool", "tool_call_id": "123456789", "content": "x"},
    ],
    "arguments that are a number": [
        USER,
        {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": 5}}]},
        {"role": "tool", "tool_call_id": "123456789", "content": "x"},
    ],
    "arguments that are a list": [
        USER,
        {
            "role": "assistant",
            "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}],
        },
        {"role": "tool", "tool_call_id": "123456789", "content": "x"},
    ],
    "a reasoning that is a number": [USER, {"role": "assistant", "reasoning_content": 5}, USER],
    "special tokens": user("[INST]</s><s>[/INST][TOOL_CALLS][IMG]"),
    "control characters": user("".join(map(chr, range(32)))),
    "private and odd characters": [
        {"role": "user", "content": "\ufffe\uffff\ue000\u202e\U0010ffff"}
    ],
    "a text of 1 MB": user("x " * 500_000),
    "a text of 1 MB without a space": user("x" * 1_000_000),
    "a text of 1 MB of emoji": user("😀" * 250_000),
    "100 000 messages": user("a") * 100_000,
    "20 000 turns": [USER, {"role": "assistant", "content": "a"}] * 10_000,
    "20 000 parts": user([{"type": "text", "text": "a"}] * 20_000),
    "extra fields": [{"role": "user", "content": "hi", "kv_transfer_params": {}, "x": [1]}],
}

PARTS: dict[str, Any] = {
    "of no type": {"text": "hi"},
    "of a type that is null": {"type": None, "text": "hi"},
    "of a type that is a number": {"type": 5},
    "of a type that is a list": {"type": []},
    "of an unknown type": {"type": "pirate", "pirate": 1},
    "text without a text": {"type": "text"},
    "text that is null": {"type": "text", "text": None},
    "text that is a number": {"type": "text", "text": 5},
    "text that is an object": {"type": "text", "text": {}},
    "refusal that is a list": {"type": "refusal", "refusal": []},
    "thinking that is a number": {"type": "thinking", "thinking": 5},
    "thinking of nothing": {"type": "thinking", "thinking": [{}]},
    "image without a URL": {"type": "image_url"},
    "image that is null": {"type": "image_url", "image_url": None},
    "image that is null with an id": {"type": "image_url", "image_url": None, "uuid": "a"},
    "image that is an id alone": {"type": "image_url", "uuid": "a"},
    "image that is a number": {"type": "image_url", "image_url": 5},
    "image that is a list": {"type": "image_url", "image_url": []},
    "image that is a text": {"type": "image_url", "image_url": "data:image/png;base64,"},
    "image whose URL is null": {"type": "image_url", "image_url": {"url": None}},
    "image whose URL is a number": {"type": "image_url", "image_url": {"url": 5}},
    "image whose URL is empty": {"type": "image_url", "image_url": {"url": ""}},
    "image whose id is a list": {**IMAGE, "uuid": ["a"]},
    "image whose id is an object": {**IMAGE, "uuid": {}},
    "image of unknown detail": {**IMAGE, "detail": 5},
    "image of no type": {"image_url": IMAGE["image_url"]["url"]},
    "image of no type that is null": {"image_url": None},
    "Python image": {"type": "image_pil", "image_pil": "x"},
    "Python image that is null": {"type": "image_pil", "image_pil": None},
    "embedding of an image": {"type": "image_embeds", "image_embeds": "AAAA"},
    "embedding of an image that is none": {"type": "image_embeds", "image_embeds": "%%%"},
    "embedding of an image that is null": {
        "type": "image_embeds",
        "image_embeds": None,
        "uuid": "a",
    },
    "embeddings of an image": {"type": "image_embeds", "image_embeds": {"a": 5}},
    "embedding of a prompt": {"type": "prompt_embeds", "data": "AAAA"},
    "embedding of a prompt without data": {"type": "prompt_embeds"},
    "sound": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "sound that is null": {"type": "input_audio", "input_audio": None},
    "sound that is a number": {"type": "input_audio", "input_audio": 5},
    "sound by URL": {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}},
    "embedding of a sound": {"type": "audio_embeds", "audio_embeds": "AAAA"},
    "film": {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    "embedding of a film": {"type": "video_embeds", "video_embeds": {}},
    "file": {"type": "file", "file": {"file_data": "AAAA"}},
    "tool reference": {"type": "tool_reference", "name": 5},
    "input text that is a number": {"type": "input_text", "text": 5},
    "input image that is a number": {"type": "input_image", "image_url": 5},
    "input image by file": {"type": "input_image", "file_id": "a"},
    "input file": {"type": "input_file", "file_data": "AAAA"},
    "text with an image": {"type": "text", "text": "hi", "image_url": {"url": "x"}},
}

TOOL_LISTS: dict[str, Any] = {
    "none": [],
    "a text": "x",
    "an object": {},
    "a null inside": [None],
    "nothing inside": [{}],
    "an unknown type": [{"type": "pirate", "function": FUNCTION}],
    "a type that is a number": [{"type": 5, "function": FUNCTION}],
    "no function": [{"type": "function"}],
    "a function that is null": [tool(None)],
    "a function that is a text": [tool("f")],
    "no name": [tool({})],
    "a name that is a number": [tool({"name": 5})],
    "an empty name": [tool({"name": ""})],
    "a name with spaces": [tool({"name": "a b\n"})],
    "a name of 10 kB": [tool({"name": "f" * 10_000})],
    "parameters that are a text": [tool({"name": "f", "parameters": "x"})],
    "parameters that are a list": [tool({"name": "f", "parameters": []})],
    "a description that is a number": [tool({"name": "f", "description": 5})],
    "the same twice": [TOOL, TOOL],
    "a thousand": [tool({**FUNCTION, "name": f"f{i}"}) for i in range(1000)],
}

CHOICES: dict[str, Any] = {
    "a number": 5,
    "a list": [],
    "nothing": {},
    "an unknown word": "maybe",
    "required": "required",
    "a function that is null": tool(None),
    "a function without a name": tool({}),
    "a name that is a list": tool({"name": []}),
    "a tool that is not there": tool({"name": "g"}),
    "the tool": tool({"name": "f"}),
    "an unknown type": {"type": "pirate", "name": "f"},
}

"""Hostile requests specific to OpenAI's Responses, Anthropic and /predict."""

from typing import Any

from tests.support.hostile.case import user
from tests.support.hostile.messages import USER


def deep(levels: int, leaf: Any = 1, name: str = "a") -> Any:
    for _ in range(levels):
        leaf = {name: leaf}
    return leaf


INPUTS: dict[str, Any] = {
    "a number": 5,
    "an object": {},
    "no items": [],
    "an empty item": [{}],
    "a null": [None],
    "a text": ["hi"],
    "an unknown type": [{"type": "pirate"}],
    "an unknown role": [{"role": "pirate", "content": "hi"}],
    "a call without a name": [{"type": "function_call", "call_id": "a", "arguments": "{}"}],
    "a call whose arguments are not JSON": [
        USER,
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"},
        {"type": "function_call_output", "call_id": "a", "output": "x"},
    ],
    "an output that nobody asked for": [
        {"type": "function_call_output", "call_id": "a", "output": "x"}
    ],
    "an output that is a number": [{"type": "function_call_output", "call_id": "a", "output": 5}],
    "an output of an image": [
        {
            "type": "function_call_output",
            "call_id": "a",
            "output": [{"type": "input_image", "file_id": "a"}],
        }
    ],
    "a reference to an item": [{"type": "item_reference", "id": "a"}],
    "a reasoning": [{"type": "reasoning", "id": "a", "summary": []}],
    "a reasoning of nothing": [{"type": "reasoning", "id": "a", "summary": [], "content": [{}]}],
    "a search": [{"type": "file_search_call", "id": "a", "queries": [], "status": "completed"}],
    "a web search": [
        {
            "type": "web_search_call",
            "id": "a",
            "status": "completed",
            "action": {"type": "search", "query": "x"},
        }
    ],
    "a computer call": [
        {"type": "computer_call", "id": "a", "call_id": "b", "status": "completed"}
    ],
    "a shell call": [
        {"type": "local_shell_call", "id": "a", "call_id": "b", "status": "completed", "action": {}}
    ],
    "an image to generate": [
        {"type": "image_generation_call", "id": "a", "status": "completed", "result": "x"}
    ],
    "10 000 items": user("a") * 10_000,
    "a call that reaches outside": [
        {"type": "mcp_list_tools", "id": "a", "server_label": "x", "tools": []}
    ],
}

RESPONSES_FIELDS: dict[str, dict[str, Any]] = {
    "an answer that is not there": {"previous_response_id": "resp_none"},
    "an answer id that is odd": {"previous_response_id": "../x"},
    "in the background": {"background": True},
    "in the background, streamed": {"background": True, "stream": True, "store": True},
    "earlier messages": {"previous_input_messages": [{"role": "user"}]},
    "a prompt of a library": {"prompt": {"id": "a"}},
    "an unknown include": {"include": ["x"]},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 1000},
    "a tool of MCP": {
        "tools": [{"type": "mcp", "server_label": "a", "server_url": "http://127.0.0.1:8000/"}]
    },
    "a code interpreter": {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    "a web search": {"tools": [{"type": "web_search_preview"}]},
    "a namespace": {
        "tools": [{"type": "namespace", "name": "a", "description": "b", "tools": [{}]}]
    },
    "a custom tool": {
        "tools": [
            {
                "type": "custom",
                "name": "f",
                "format": {"type": "grammar", "syntax": "lark", "definition": "("},
            }
        ]
    },
    "a function without parameters": {"tools": [{"type": "function", "name": "f"}]},
    "a text format of a recursive schema": {
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"$ref": "#"}}}
    },
    "a text format of an unknown type": {"text": {"format": {"type": "x"}}},
    "an effort": {"reasoning": {"effort": "huge"}},
    "a named tool that is not there": {"tool_choice": {"type": "function", "name": "g"}},
    "a tool choice of MCP": {"tool_choice": {"type": "mcp", "server_label": "a"}},
    "metadata that is deep": {"metadata": deep(50)},
    "instructions that are a list": {"instructions": []},
    "no tools to call": {"max_tool_calls": -1},
}

ANTHROPIC_FIELDS: dict[str, dict[str, Any]] = {
    "no tokens": {"max_tokens": 0},
    "no tokens given": {"max_tokens": None},
    "a system that is a number": {"system": 5},
    "a system of nothing": {"system": [{}]},
    "a system of images": {"system": [{"type": "image", "source": {}}]},
    "a tool without a schema": {"tools": [{"name": "f"}]},
    "a tool whose schema refers to itself": {
        "tools": [{"name": "f", "input_schema": {"$ref": "#"}}]
    },
    "a tool whose schema is a list": {"tools": [{"name": "f", "input_schema": []}]},
    "a tool of the server": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "a tool choice without a name": {"tool_choice": {"type": "tool"}},
    "a tool choice that is not there": {"tool_choice": {"type": "tool", "name": "g"}},
    "any tool of none": {"tool_choice": {"type": "any"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    "thinking of nothing": {"thinking": {}},
    "five stop sequences": {"stop_sequences": ["a", "b", "c", "d", "e"]},
    "stop sequences that are a text": {"stop_sequences": "a"},
    "an output of a recursive schema": {
        "output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#"}}}
    },
    "an odd temperature": {"temperature": 5},
    "an odd top_k": {"top_k": 1e30},
}

BLOCKS: dict[str, Any] = {
    "of an unknown type": {"type": "pirate"},
    "text without text": {"type": "text"},
    "image without a source": {"type": "image"},
    "image whose source is nothing": {"type": "image", "source": {}},
    "image whose source is a file": {"type": "image", "source": {"type": "file", "file_id": "a"}},
    "image that is not base64": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "%%%"},
    },
    "image without a type": {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
    "image of a number": {
        "type": "image",
        "source": {"type": "base64", "media_type": 5, "data": 5},
    },
    "tool use of nothing": {"type": "tool_use"},
    "tool use of a number": {"type": "tool_use", "id": "a", "name": "f", "input": 5},
    "tool result of nobody": {"type": "tool_result", "tool_use_id": "a", "content": "x"},
    "tool result of nothing": {"type": "tool_result"},
    "tool result of odd parts": {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": [{"type": "image"}],
    },
    "tool result of numbers": {"type": "tool_result", "tool_use_id": "a", "content": [{"type": 5}]},
    "thinking of nothing": {"type": "thinking"},
    "redacted thinking": {"type": "redacted_thinking", "data": "x"},
    "tool addition": {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}},
    "document": {"type": "document", "source": {"type": "text", "data": "x"}},
}

LEGACY: dict[str, dict[str, Any]] = {
    "a prompt that is a list": {"prompt": ["hi"]},
    "a prompt of 1 MB": {"prompt": "x " * 500_000},
    "a prompt of 100 000 markers": {"prompt": "[INST]" * 100_000},
    "a prompt that ends": {"prompt": "<s>[INST] hi [/INST] hello</s>"},
    "no new tokens": {"max_new_tokens": 0},
    "a length of 1": {"max_length": 1},
    "a length of 10^12": {"max_length": 10**12},
    "a misspelt name": {"max_new_token": 5},
    "bad words of nothing": {"bad_words_ids": [[]]},
    "bad words out of range": {"bad_words_ids": [[10**9, 5]]},
    "5000 bad words": {"bad_words_ids": [[i, i + 1] for i in range(5000)]},
    "a bad word of 5000 tokens": {"bad_words_ids": [list(range(5000))]},
    "an end out of range": {"eos_token_id": 10**9},
    "5000 ends": {"eos_token_id": list(range(5000))},
    "suppressed tokens out of range": {"suppress_tokens": [10**9]},
    "20 000 suppressed tokens": {"suppress_tokens": list(range(20_000))},
    "a bias of tokens": {"sequence_bias": [[[1, 2], 1.0]]},
    "a bias out of range": {"sequence_bias": [[[10**9], 1.0]]},
    "1000 answers": {"num_return_sequences": 1000},
    "1000 beams": {"num_beams": 1000},
    "a top_k of 1e18": {"top_k": 1e18},
    "a penalty of 0": {"repetition_penalty": 0},
    "a config that is a list": {"generation_config": []},
    "a config of a config": {"generation_config": {"generation_config": {}}},
    "a deep config": {"generation_config": deep(100)},
    "constraints": {"structured_outputs": {"regex": "("}},
    "five stop strings": {"stop_strings": ["a", "b", "c", "d", "e"]},
    "a stop string of 1 MB": {"stop_strings": "x" * 1_000_000},
    "half a word of output": {"return_full_text": "yes"},
    "the engine's own": {"kv_transfer_params": {"a": 1}},
}

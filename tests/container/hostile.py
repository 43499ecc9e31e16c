# ruff: noqa: E501
"""Requests that ask for trouble: data, and how it is put together.

Promises: `cases` names each request by what it does; the same model gives the same requests in the
same order. What is too large to write down is built.
"""

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT, PREDICT = "/v1/chat/completions", "/predict"
COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS = "/v1/messages", "/v1/messages/count_tokens"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"

JSON = {"Content-Type": "application/json"}

Body = dict[str, Any]


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    content: bytes
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"
    chunked: bool = False  # sent in pieces, without a Content-Length


def valid(model: str) -> dict[str, Body]:
    """Route → a small request that it answers."""
    hi = [{"role": "user", "content": "hi"}]
    return {
        CHAT: {"model": model, "messages": hi, "max_tokens": 2},
        PREDICT: {"prompt": "hi", "max_new_tokens": 2},
        COMPLETIONS: {"model": model, "prompt": "hi", "max_tokens": 2},
        RESPONSES: {"model": model, "input": "hi", "max_output_tokens": 2},
        MESSAGES: {"model": model, "messages": hi, "max_tokens": 2},
        COUNT_TOKENS: {"model": model, "messages": hi},
        TOKENIZE: {"model": model, "prompt": "hi"},
        DETOKENIZE: {"model": model, "tokens": [1, 2, 3]},
    }


def rich(model: str) -> dict[str, Body]:
    """Route → a request with something of everything, which it answers or refuses."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    parts = [{"type": "text", "text": "hi"}, {"type": "text", "text": "ho"}]
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "why"},
    ]
    chat = {"model": model, "messages": turns, "max_tokens": 2, "temperature": 0.5, "top_p": 0.9}
    more = {"stop": ["x"], "seed": 1, "logit_bias": {"5": 1}, "logprobs": True, "top_logprobs": 1}
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    function = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    block = {"name": "f", "input_schema": {"type": "object"}}
    small = valid(model)
    return {
        CHAT: {**chat, **more, "tools": [tool], "tool_choice": "auto", "response_format": schema},
        PREDICT: {"messages": turns, "max_new_tokens": 2, "top_k": 5, "bad_words_ids": [[5]]},
        COMPLETIONS: {
            **small[COMPLETIONS],
            "prompt": ["a", "b"],
            "n": 2,
            "logprobs": 1,
            "top_k": 5,
        },
        RESPONSES: {**small[RESPONSES], "input": [item], "tools": [function], "temperature": 0.5},
        MESSAGES: {**small[MESSAGES], "messages": turns[1:], "tools": [block], "system": parts},
        COUNT_TOKENS: {**small[COUNT_TOKENS], "messages": turns[1:], "tools": [block]},
        TOKENIZE: {"model": model, "messages": turns, "tools": [tool]},
        DETOKENIZE: small[DETOKENIZE],
    }


# --- what is no JSON object, on every route ---

NOT_A_REQUEST: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n\t",
    "a null": b"null",
    "a number": b"5",
    "a text": b'"hi"',
    "a list": b"[]",
    "an empty object": b"{}",
    "an open brace": b"{",
    "a form": b"prompt=hi&max_tokens=5",
    "XML": b"<prompt>hi</prompt>",
    "no UTF-8": b"\xff\xfe\xfa",
    "no UTF-8 in a value": b'{"prompt": "\xff", "messages": [{"role": "user", "content": "\xff"}]}',
    "no UTF-8 in a name": b'{"\xff": 1}',
    "UTF-16": json.dumps({"prompt": "hi"}).encode("utf-16"),
    "UTF-32": json.dumps({"prompt": "hi"}).encode("utf-32"),
    "NUL bytes": b"\0" * 100,
    "a NUL in a name": b'{"a\\u0000b": 1, "prompt": "hi"}',
    "an overlong encoding": b'{"prompt": "\xc0\xaf"}',
    "half a surrogate pair": b'{"prompt": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}',
    "half a pair in a name": b'{"\\ud800": 1}',
    "half a pair in model": b'{"model": "\\ud800", "prompt": "hi", "messages": [], "input": "hi"}',
    "a trailing comma": b'{"prompt": "hi",}',
    "two objects": b'{"prompt": "hi"}{"prompt": "hi"}',
    "a comment": b'{"prompt": "hi" /* hello */}',
    "single quotes": b"{'prompt': 'hi'}",
    "Python": b'{"prompt": "hi", "stream": True, "user": None}',
    "a control character": b'{"prompt": "a\x01b"}',
    "NaN": b'{"prompt": "hi", "input": "hi", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
    "Infinity": b'{"prompt": "hi", "input": "hi", "messages": [{"role": "user", "content": "hi"}], "top_p": -Infinity}',
    "1e999": b'{"prompt": "hi", "input": "hi", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}',
    "a number of 5000 digits": b'{"prompt": "hi", "max_tokens": ' + b"9" * 5000 + b"}",
    "a number of 1 MB": b'{"prompt": "hi", "max_tokens": ' + b"9" * 1_000_000 + b"}",
    "100 000 open brackets": b"[" * 100_000,
    "100 000 open braces": b'{"a":' * 100_000,
    "deep and closed": b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "500 deep": b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}",
    "900 objects deep": b'{"messages": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    "50 000 names": json.dumps({f"n{i}": i for i in range(50_000)}).encode(),
    "a name of 1 MB": b'{"' + b"n" * 1_000_000 + b'": 1}',
    "an unfinished text of 1 MB": b'{"prompt": "' + b"x" * 1_000_000,
    "half a million empty lists": b'{"messages": [' + b"[]," * 500_000 + b"[]]}",
    "half a million nulls": b'{"messages": [' + b"null," * 300_000 + b"null]}",
    "half a million empty objects as input": b'{"input": [' + b"{}," * 500_000 + b"{}]}",
}

# --- wrong values of every field a request may have ---

WRONG_VALUES: list[Any] = [
    "",
    "x",
    "\0",
    "5",
    "é" * 3000,
    True,
    False,
    0,
    -1,
    -2,
    0.5,
    1e-300,
    1e30,
    -1e30,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    -(2**31) - 1,
    -(2**63),
    -(2**63) - 1,
    10**400,
    [],
    [[]],
    [{}],
    [None],
    [-1],
    [2**31],
    [2**63],
    [2**64],
    ["x", 5],
    [""],
    [True],
    ["x"] * 5000,
    list(range(5000)),
    [[1], [2]],
    {},
    {"a": 1},
    {"": None},
    {"-1": 1},
    {"1": "x"},
    {"99999999": 1},
    {"1": 1e30},
    {"type": "x"},
    {"type": None},
    {"type": []},
    {"type": "json_schema"},
    {"type": "function"},
    {"a": {"b": {"c": [{}]}}},
]


# --- one field of one route, beside a valid request ---

USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\0\0\0\x0cIDAT"
    b"x\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82"
).decode()
IMAGE: Body = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def deep(levels: int, leaf: Any = 1, name: str = "a") -> Any:
    for _ in range(levels):
        leaf = {name: leaf}
    return leaf


def deep_schema(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


SCHEMAS: dict[str, Any] = {
    "that refers to itself": {"$ref": "#"},
    "whose definition refers to itself": {
        "$defs": {"a": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "of two that refer to each other": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "that refers to nothing": {"$ref": "#/$defs/none"},
    "that refers elsewhere": {"$ref": "http://127.0.0.1:8000/health"},
    "that refers to a file": {"$ref": "file:///etc/passwd"},
    "whose reference is a number": {"$ref": 5},
    "of itself any times": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "of itself and all": {"allOf": [{"$ref": "#"}]},
    "of an unknown type": {"type": "x"},
    "whose type is a number": {"type": 5},
    "whose type is a list of numbers": {"type": [5]},
    "whose properties are a list": {"type": "object", "properties": []},
    "whose properties are numbers": {"type": "object", "properties": {"a": 5}},
    "whose required is a text": {"type": "object", "required": "a"},
    "whose items are a text": {"type": "array", "items": "x"},
    "with no value in enum": {"enum": []},
    "with a text for enum": {"enum": "x"},
    "with 20 000 values in enum": {"enum": [f"value {i}" for i in range(20_000)]},
    "with a negative length": {"type": "string", "minLength": -1},
    "with a length that is a text": {"type": "string", "maxLength": "x"},
    "of a text of a billion": {"type": "string", "minLength": 10**9},
    "of a text of at most a million": {"type": "string", "maxLength": 10**6},
    "of a list of a billion": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "of a list of at most a million": {
        "type": "array",
        "items": {"type": "string"},
        "maxItems": 10**6,
    },
    "of lists of lists of a thousand": {
        "type": "array",
        "maxItems": 1000,
        "items": {"type": "array", "maxItems": 1000, "items": {"type": "array", "maxItems": 1000}},
    },
    "of more at least than at most": {"type": "array", "minItems": 5, "maxItems": 1},
    "of a number that cannot be": {"type": "integer", "minimum": 5, "maximum": 1},
    "of a huge number": {"type": "integer", "minimum": 10**30, "maximum": 10**40},
    "of an infinite range": {"type": "number", "minimum": -1e300, "maximum": 1e300},
    "with a broken pattern": {"type": "string", "pattern": "("},
    "with a pattern that is a number": {"type": "string", "pattern": 5},
    "with a pattern that backtracks": {"type": "string", "pattern": "^(a+)+$"},
    "with a pattern that explodes": {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
    "with a look-behind": {"type": "string", "pattern": "(?<=a)b"},
    "with a back-reference": {"type": "string", "pattern": "(a)\\1"},
    "with an unknown format": {"type": "string", "format": "x"},
    "60 deep": deep_schema(25),
    "200 deep": deep_schema(100),
    "600 deep": deep_schema(300),
    "with 3000 properties": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(3000)},
    },
    "with 300 optional properties": {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(300)},
        "additionalProperties": False,
    },
    "with a thousand choices": {"anyOf": [deep_schema(3) for _ in range(1000)]},
    "of choices of choices": {"anyOf": [{"anyOf": [{"anyOf": [{}] * 30}] * 30}] * 30},
    "that is true": True,
    "that is false": False,
    "that is a list": [],
    "that is a text": "x",
    "that is null": None,
    "with a name of NUL": {
        "type": "object",
        "properties": {"\0": {"type": "string"}},
        "required": ["\0"],
    },
    "with a pattern for names": {"type": "object", "patternProperties": {"(": {}}},
    "with if and then": {"if": {"type": "string"}, "then": {"minLength": 3}},
    "with a not": {"not": {}},
    "that allows nothing": {"not": {"not": {"type": "string"}}, "allOf": [False]},
}

REGEXES: dict[str, Any] = {
    "broken": "(",
    "broken brackets": "[",
    "broken repetition": "a{5,1}",
    "nothing": "",
    "a NUL": "\0",
    "backtracking": "(a+)+$",
    "exploding": "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
    "a repetition of a million": "a{1000000}",
    "a repetition of a billion": "(ab|cd){1,1000000000}",
    "a repetition of 10^20": "a{99999999999999999999}",
    "ten thousand groups": "(" * 10_000 + "a" + ")" * 10_000,
    "ten thousand choices": "|".join(f"word{i}" for i in range(10_000)),
    "a look-ahead": "(?=a)a",
    "a back-reference": "(a)\\1",
    "a named group": "(?P<a>x)(?P=a)",
    "a Unicode class": "\\p{L}+",
    "any of all": "(.*)*" * 200,
    "subsets": "(a|b)*a" + "(a|b)" * 30,
    "a number": 5,
    "a list": [],
    "100 kB": "a" * 100_000,
}

GRAMMARS: dict[str, Any] = {
    "broken": "root ::= (",
    "nothing": "",
    "no root": "a ::= b",
    "a rule that is not there": "root ::= missing",
    "left recursion": "root ::= root root",
    "nothing but itself": "root ::= root",
    "two that refer to each other": "root ::= a\na ::= b\nb ::= a",
    "an empty loop": 'root ::= ("" | root)* "a"',
    "deep": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "many rules": "root ::= a0\n"
    + "\n".join(f"a{i} ::= a{i + 1}" for i in range(5000))
    + '\na5000 ::= "x"',
    "a repetition of a billion": 'root ::= "a"{1000000000}',
    "a repetition in a repetition": 'root ::= (("a"{1,1000}){1,1000}){1,1000}',
    "Lark": 'start: "a"',
    "a number": 5,
    "NUL": 'root ::= "\0"',
    "100 kB": 'root ::= "' + "a" * 100_000 + '"',
}

CONSTRAINTS: dict[str, Any] = {
    "a number": 5,
    "a text": "x",
    "a list": [],
    "nothing": {},
    "two of them": {"json": {}, "regex": "a"},
    "an unknown one": {"x": 1},
    "choices that are a text": {"choice": "x"},
    "no choices": {"choice": []},
    "choices that are numbers": {"choice": [1, 2]},
    "an empty choice": {"choice": [""]},
    "20 000 choices": {"choice": [f"choice {i}" for i in range(20_000)]},
    "a choice of 100 kB": {"choice": ["x" * 100_000]},
    "a choice with quotes": {"choice": ['"\\']},
    "JSON as a text that is none": {"json": "{"},
    "JSON that is a number": {"json": 5},
    "a structural tag that is none": {"structural_tag": "{"},
    "a structural tag of numbers": {"structural_tag": "5"},
    "a structural tag of nothing": {"structural_tag": "{}"},
    "a structural tag that is an object": {"structural_tag": {}},
    "a structural tag of an unknown kind": {
        "structural_tag": '{"type": "structural_tag", "format": {"type": "x"}}'
    },
    "a white space pattern that is broken": {"json": {"type": "object"}, "whitespace_pattern": "("},
    "json_object that is false": {"json_object": False},
    "a back end": {"json": {}, "_backend": "outlines"},
}

FORMATS: dict[str, Any] = {
    "a number": 5,
    "a text": "json_object",
    "a list": [],
    "nothing": {},
    "an unknown type": {"type": "x"},
    "json_schema without one": {"type": "json_schema"},
    "json_schema that is null": {"type": "json_schema", "json_schema": None},
    "json_schema that is a number": {"type": "json_schema", "json_schema": 5},
    "json_schema without a name": {"type": "json_schema", "json_schema": {"schema": {}}},
    "json_schema without a schema": {"type": "json_schema", "json_schema": {"name": "a"}},
    "a structural tag of nothing": {"type": "structural_tag"},
    "a structural tag of text": {"type": "structural_tag", "format": "x"},
    "a structural tag of an unknown format": {"type": "structural_tag", "format": {"type": "x"}},
    "a structural tag without triggers": {
        "type": "structural_tag",
        "structures": [{"begin": "a", "schema": {"$ref": "#"}, "end": "b"}],
        "triggers": [],
    },
    "a grammar": {"type": "grammar", "grammar": "root ::= ("},
}

MESSAGE_LISTS: dict[str, Any] = {
    "none": [],
    "a null": None,
    "a text": "hi",
    "a number": 5,
    "an object": {"role": "user", "content": "hi"},
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
    "a content that is null": [{"role": "user", "content": None}],
    "a content that is a number": [{"role": "user", "content": 5}],
    "a content that is an object": [{"role": "user", "content": {"text": "hi"}}],
    "an empty content": [{"role": "user", "content": ""}],
    "no parts": [{"role": "user", "content": []}],
    "an empty part": [{"role": "user", "content": [{}]}],
    "a part that is null": [{"role": "user", "content": [None]}],
    "a part that is a text": [{"role": "user", "content": ["hi"]}],
    "a part that is a list": [{"role": "user", "content": [[]]}],
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
    "arguments that are no JSON": [
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
    "special tokens": [{"role": "user", "content": "[INST]</s><s>[/INST][TOOL_CALLS][IMG]"}],
    "control characters": [{"role": "user", "content": "".join(map(chr, range(32)))}],
    "private and odd characters": [
        {"role": "user", "content": "\ufffe\uffff\ue000\u202e\U0010ffff"}
    ],
    "a text of 1 MB": [{"role": "user", "content": "x " * 500_000}],
    "a text of 1 MB without a space": [{"role": "user", "content": "x" * 1_000_000}],
    "a text of 1 MB of emoji": [{"role": "user", "content": "😀" * 250_000}],
    "100 000 messages": [{"role": "user", "content": "a"}] * 100_000,
    "20 000 turns": [USER, {"role": "assistant", "content": "a"}] * 10_000,
    "20 000 parts": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 20_000}],
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
    "a function that is null": [{"type": "function", "function": None}],
    "a function that is a text": [{"type": "function", "function": "f"}],
    "no name": [{"type": "function", "function": {}}],
    "a name that is a number": [{"type": "function", "function": {"name": 5}}],
    "an empty name": [{"type": "function", "function": {"name": ""}}],
    "a name with spaces": [{"type": "function", "function": {"name": "a b\n"}}],
    "a name of 10 kB": [{"type": "function", "function": {"name": "f" * 10_000}}],
    "parameters that are a text": [
        {"type": "function", "function": {"name": "f", "parameters": "x"}}
    ],
    "parameters that are a list": [
        {"type": "function", "function": {"name": "f", "parameters": []}}
    ],
    "a description that is a number": [
        {"type": "function", "function": {"name": "f", "description": 5}}
    ],
    "the same twice": [TOOL, TOOL],
    "a thousand": [
        {"type": "function", "function": {**FUNCTION, "name": f"f{i}"}} for i in range(1000)
    ],
}

CHOICES: dict[str, Any] = {
    "a number": 5,
    "a list": [],
    "nothing": {},
    "an unknown word": "maybe",
    "required": "required",
    "a function that is null": {"type": "function", "function": None},
    "a function without a name": {"type": "function", "function": {}},
    "a name that is a list": {"type": "function", "function": {"name": []}},
    "a tool that is not there": {"type": "function", "function": {"name": "g"}},
    "the tool": {"type": "function", "function": {"name": "f"}},
    "an unknown type": {"type": "pirate", "name": "f"},
}

COMBINATIONS: dict[str, dict[str, Any]] = {
    "more at least than at most": {"min_tokens": 5, "max_tokens": 2},
    "no tokens": {"max_tokens": 0},
    "no tokens by its other name": {"max_completion_tokens": 0},
    "fewer than none": {"max_tokens": -1},
    "2^31 tokens": {"max_tokens": 2**31},
    "2^63 tokens": {"max_tokens": 2**63},
    "16384 answers": {"n": 16384, "temperature": 1},
    "a million answers": {"n": 1_000_000, "temperature": 1},
    "two greedy answers": {"n": 2, "temperature": 0},
    "64 beams": {"use_beam_search": True, "n": 64, "max_tokens": 2},
    "no beams": {"use_beam_search": True, "n": 0},
    "beams in a stream": {"use_beam_search": True, "n": 2, "stream": True},
    "beams with logprobs": {"use_beam_search": True, "n": 2, "logprobs": 5},
    "best of": {"best_of": 100},
    "suffix": {"suffix": "x"},
    "a turn that goes on": {"continue_final_message": True},
    "a turn that goes on, and a new one": {
        "continue_final_message": True,
        "add_generation_prompt": True,
    },
    "a turn that goes on, and no new one": {
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "no new turn": {"add_generation_prompt": False},
    "all logprobs": {"logprobs": True, "top_logprobs": -1},
    "1000 logprobs": {"logprobs": True, "top_logprobs": 1000},
    "logprobs of tokens that are not there": {"logprobs": True, "logprob_token_ids": [-1, 2**31]},
    "all logprobs of the prompt": {"prompt_logprobs": -1},
    "1000 logprobs of the prompt": {"prompt_logprobs": 1000},
    "echo and logprobs of the prompt": {"echo": True, "prompt_logprobs": 2},
    "echo without an answer": {"echo": True, "max_tokens": 0, "logprobs": 1},
    "cut to fewer than none": {"truncate_prompt_tokens": -5},
    "cut to nothing": {"truncate_prompt_tokens": 0},
    "cut to 2^62": {"truncate_prompt_tokens": 2**62},
    "a bias of no token": {"logit_bias": {"x": 1}},
    "a bias of a token that is not there": {"logit_bias": {"99999999": 1}},
    "a bias of token -1": {"logit_bias": {"-1": 1}},
    "a bias of 1000": {"logit_bias": {"1": 1000}},
    "20 000 biases": {"logit_bias": {str(i): 1 for i in range(20_000)}},
    "stop tokens that are not there": {"stop_token_ids": [-1, 10**9]},
    "20 000 stop tokens": {"stop_token_ids": list(range(20_000))},
    "allowed tokens that are not there": {"allowed_token_ids": [10**9]},
    "no allowed tokens": {"allowed_token_ids": []},
    "negative allowed tokens": {"allowed_token_ids": [-5]},
    "five stop strings": {"stop": ["a", "b", "c", "d", "e"]},
    "10 000 stop strings": {"stop": ["a"] * 10_000},
    "an empty stop string": {"stop": ""},
    "a stop string of 1 MB": {"stop": "x" * 1_000_000},
    "an empty bad word": {"bad_words": [""]},
    "10 000 bad words": {"bad_words": [f"w{i}" for i in range(10_000)]},
    "a bad word of 100 kB": {"bad_words": ["x " * 50_000]},
    "an odd repetition": {"repetition_detection": {"max_pattern_size": 10**9, "min_count": 2}},
    "a repetition that is none": {"repetition_detection": {"max_pattern_size": -1}},
    "stream options without a stream": {"stream_options": {"include_usage": True}},
    "odd stream options": {"stream": True, "stream_options": {"include_usage": "maybe"}},
    "a huge interval": {"stream": True, "stream_interval": 10**12},
    "a thinking budget": {"thinking_token_budget": 10**12},
    "another model": {"model": "gpt-4"},
    "a model of 100 kB": {"model": "x" * 100_000},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "a salt": {"cache_salt": "@/\\"},
    "hidden characters": {"user": "\0\x1b[31m\n"},
}

ENGINE_S_OWN: dict[str, Any] = {
    "kv_transfer_params": {"prompt_token_ids": [1, 2, 3]},
    "ec_transfer_params": {"a": 1},
    "mm_payload": "none",
    "return_mm_kwargs": False,
    "priority": -10,
    "request_id": "mine",
    "session_id": "mine",
    "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"tokenize": False},
    "vllm_xargs": {"a": 1},
    "mm_processor_kwargs": {"a": 1},
    "media_io_kwargs": {"image": {"a": 1}},
    "prompt_embeds": "AAAA",
    "routed_experts_prompt_start": 1,
}

PROMPTS: dict[str, Any] = {
    "nothing": "",
    "a null": None,
    "a number": 5,
    "an object": {},
    "no prompts": [],
    "empty prompts": [""],
    "a null among prompts": ["hi", None],
    "no tokens": [[]],
    "a negative token": [-1],
    "a token that is not there": [10**6],
    "a token of 2^31": [2**31],
    "a token of 2^64": [2**64],
    "texts and tokens": ["hi", 5],
    "fractions": [0.5],
    "lists of lists of lists": [[[1]]],
    "5000 prompts": ["hi"] * 5000,
    "5000 prompts of tokens": [[5]] * 5000,
    "200 000 tokens": [5] * 200_000,
    "embeddings": {"prompt_embeds": "AAAA"},
}

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
    "a call whose arguments are no JSON": [
        {"role": "user", "content": "hi"},
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
    "10 000 items": [{"role": "user", "content": "a"}] * 10_000,
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
    "image that is no base64": {
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

OLDER: dict[str, dict[str, Any]] = {
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

TOKENS: dict[str, Any] = {
    "none": [],
    "a null": None,
    "a text": "x",
    "a negative one": [-1],
    "one that is not there": [10**6],
    "2^31": [2**31],
    "2^63 - 1": [2**63 - 1],
    "2^64": [2**64],
    "fractions": [0.5],
    "texts": ["x"],
    "lists": [[1]],
    "a million": [5] * 1_000_000,
}


def cases(model: str) -> Iterator[Case]:
    """The fixed requests, for a model of this name."""
    requests = valid(model)
    for path in requests:
        for name, content in NOT_A_REQUEST.items():
            yield Case(f"{path} {name}", path, content)
        yield from _transport(path, json.dumps(requests[path]).encode())
    yield from _with_fields(requests)


def _with_fields(requests: dict[str, Body]) -> Iterator[Case]:
    def case(path: str, name: str, **fields: Any) -> Case:
        return Case(f"{path} {name}", path, json.dumps({**requests[path], **fields}).encode())

    for path in (CHAT, COMPLETIONS):
        for name, schema in SCHEMAS.items():
            yield case(path, f"schema {name}", structured_outputs={"json": schema})
            yield case(
                path,
                f"response format of a schema {name}",
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": schema},
                },
            )
        for name, regex in REGEXES.items():
            yield case(path, f"regex {name}", structured_outputs={"regex": regex})
        for name, grammar in GRAMMARS.items():
            yield case(path, f"grammar {name}", structured_outputs={"grammar": grammar})
        for name, constraint in CONSTRAINTS.items():
            yield case(path, f"constraint {name}", structured_outputs=constraint)
        for name, format in FORMATS.items():
            yield case(path, f"format {name}", response_format=format)
    for path in (CHAT, COMPLETIONS, RESPONSES, PREDICT):
        for name, fields in COMBINATIONS.items():
            yield case(path, name, **fields)
    for path in (CHAT, MESSAGES, COUNT_TOKENS, TOKENIZE):
        for name, messages in MESSAGE_LISTS.items():
            yield case(path, f"messages: {name}", messages=messages)
        for name, part in PARTS.items():
            yield case(path, f"part {name}", messages=[{"role": "user", "content": [part]}])
    for path in (CHAT, TOKENIZE):
        for name, tools in TOOL_LISTS.items():
            extra = {} if path == CHAT else {"messages": [USER]}
            yield case(path, f"tools: {name}", tools=tools, **extra)
    for name, schema in SCHEMAS.items():
        function = {"name": "f", "parameters": schema}
        yield case(
            CHAT, f"tool of a schema {name}", tools=[{"type": "function", "function": function}]
        )
        yield case(
            CHAT,
            f"required tool of a schema {name}",
            tools=[{"type": "function", "function": function}],
            tool_choice="required",
        )
    for name, choice in CHOICES.items():
        yield case(CHAT, f"choice: {name}", tools=[TOOL], tool_choice=choice)
        yield case(CHAT, f"choice of nothing: {name}", tools=[{}], tool_choice=choice)
        yield case(CHAT, f"choice without tools: {name}", tool_choice=choice)
    for path in requests:
        for name, value in ENGINE_S_OWN.items():
            yield case(path, f"the engine's own {name}", **{name: value})
    for name, prompt in PROMPTS.items():
        yield case(COMPLETIONS, f"prompt: {name}", prompt=prompt)
        yield case(TOKENIZE, f"prompt: {name}", prompt=prompt)
    for name, items in {**INPUTS, **MESSAGE_LISTS}.items():
        yield case(RESPONSES, f"input: {name}", input=items)
    for name, part in PARTS.items():
        yield case(RESPONSES, f"part {name}", input=[{"role": "user", "content": [part]}])
    for name, fields in RESPONSES_FIELDS.items():
        yield case(RESPONSES, name, **fields)
    for path in (MESSAGES, COUNT_TOKENS):
        for name, fields in ANTHROPIC_FIELDS.items():
            yield case(path, name, **fields)
        for name, block in BLOCKS.items():
            yield case(path, f"block {name}", messages=[{"role": "user", "content": [block]}])
    for name, fields in OLDER.items():
        yield case(PREDICT, name, **fields)
    for name, tokens in TOKENS.items():
        yield case(DETOKENIZE, f"tokens: {name}", tokens=tokens)


def _transport(path: str, content: bytes) -> Iterator[Case]:
    """The valid request, oddly sent."""
    yield Case(
        f"{path} gzipped",
        path,
        zlib.compress(content, wbits=31),
        {**JSON, "Content-Encoding": "gzip"},
    )
    yield Case(f"{path} said to be gzipped", path, content, {**JSON, "Content-Encoding": "gzip"})
    yield Case(f"{path} of an unknown encoding", path, content, {**JSON, "Content-Encoding": "x"})
    yield Case(f"{path} in pieces", path, content, chunked=True)
    yield Case(
        f"{path} as a form", path, content, {"Content-Type": "multipart/form-data; boundary=a"}
    )
    yield Case(f"{path} as text", path, content, {"Content-Type": "text/plain; charset=utf-16"})
    yield Case(f"{path} without a type", path, content, {})
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        yield Case(f"{path} by {method}", path, b"" if method == "GET" else content, method=method)
    for name in ("X-Request-Id", "X-data-parallel-rank", "X-Vllm-Priority", "X-Session-ID"):
        yield Case(f"{path} with {name}", path, content, {**JSON, name: "-99999999999999999999"})
    yield Case(f"{path} with a header of 6 kB", path, content, {**JSON, "X-Request-Id": "x" * 6000})
    yield Case(
        f"{path} that asks for metrics",
        path,
        content,
        {**JSON, "endpoint-load-metrics-format": "x\ty"},
    )
    yield Case(f"{path} of 40 MB", path, b'{"prompt": "' + b"x" * 40_000_000 + b'"}')


def wrong_values(model: str, fields: dict[str, list[str]]) -> Iterator[Case]:
    """Each of a route's `fields` with each of the wrong values, beside a valid request."""
    requests = valid(model)
    for path, names in fields.items():
        for name in names:
            for value in WRONG_VALUES:
                body = json.dumps({**requests[path], name: value}).encode()
                yield Case(f"{path} {name}: {str(value)[:40]}", path, body)

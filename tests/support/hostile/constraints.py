"""Hostile constraints on the output: schemas, patterns, grammars and formats."""

from typing import Any

# A character of a JSON text, as its own rule: nothing to compile, and slow masks.
CHARACTER = r"""c ::= [^"\\\x00-\x1f] | "\\" e
e ::= ["\\/bfnrt] | "u" [0-9a-fA-F]{4}"""


def slow_later(mark: str) -> str:
    """A grammar whose masks are slow after more characters than its trial covers."""
    return f'root ::= "{mark}" [ab]{{200}} "x" c{{0,300}} "z"\n{CHARACTER}'


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
    "with a look-ahead": {"type": "string", "pattern": "^(?!a).*$"},
    "with a look-ahead at subsets": {"type": "string", "pattern": "(?!(a|b)*a(a|b){30}c).*"},
    "with a thousand look-aheads": {
        "anyOf": [{"type": "string", "pattern": f"(?=.*b)[ab]{{{i},}}"} for i in range(1000)]
    },
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
    "a look-ahead at subsets": "(?=(a|b)*a(a|b){30}c)[abc]*",
    "look-ahead in look-ahead": "(?=(?!" * 100 + "a" + "))" * 100 + "a",
    "ten thousand look-aheads": "".join(f"(?=.*a{{{i}}})" for i in range(10_000)) + "a*",
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

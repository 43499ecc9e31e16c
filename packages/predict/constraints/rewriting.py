"""Regular expressions in words that xgrammar can read, wherever a constraint has some.

Promises: categories (categories.py) and look-around (lookaround/) are written in other words, in an
expression and in the patterns of a JSON schema or a structural tag; everything else stays as it is.
Refuses, with one of `ERRORS`, what is too much of them in a constraint. The first category takes a
tenth of a second, look-around up to 0.05 s: `needed` tells who has none.
"""

import json
from typing import Any

from predict.constraints import lookaround
from predict.constraints.categories import CategoryError, Spelling, appear
from predict.requests.json_schemas import BY_NAME, VALUES

ERRORS = (CategoryError, lookaround.LookAroundError)


def needed(text: str) -> bool:
    """Whether a regular expression, or a JSON text of some, may have what xgrammar cannot read."""
    escaped = "\\u00" in text  # JSON's, of any character of ASCII
    return escaped or appear(text) or lookaround.appears(text)


class Rewriting:
    """Of one constraint."""

    def __init__(self) -> None:
        self.spelling = Spelling()
        self.work = lookaround.Work()
        self.known: dict[tuple[str, bool], str] = {}

    def whole(self, regex: str) -> tuple[str | None, str | None]:
        """Of an expression that is the whole constraint: it, or a grammar in EBNF."""
        spelled = self.spelling.regex(regex)
        grammar = lookaround.as_grammar(spelled, self.work)
        return (None, grammar) if grammar else (spelled, None)

    def regex(self, regex: str, in_string: bool = True) -> str:
        spelled = self.spelling.regex(regex)
        if not lookaround.appears(spelled):
            return spelled
        key = (spelled, in_string)
        if key not in self.known:
            self.known[key] = lookaround.as_expression(spelled, self.work, in_string)
        self.work.take(len(self.known[key]) // 16)
        return self.known[key]

    def schema(self, text: str) -> str:
        """A JSON text of a schema, or of a structural tag."""
        read = json.loads(text)
        written = self.node(read)
        return text if written == read else json.dumps(written, ensure_ascii=False)

    def node(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(one) for one in node]
        if not isinstance(node, dict):
            return node
        in_string = node.get("type") != "regex"  # which is a structural tag's
        return {name: self.keyword(name, value, in_string) for name, value in node.items()}

    def keyword(self, name: str, value: Any, in_string: bool) -> Any:
        if name == "pattern" and isinstance(value, str):
            return self.regex(value, in_string)
        if name in VALUES:
            return value
        if name in BY_NAME and isinstance(value, dict):
            spelled = self.regex if name == "patternProperties" else str
            return {spelled(key): self.node(inner) for key, inner in value.items()}
        return self.node(value)

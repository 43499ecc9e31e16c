"""Rewrites regular expressions so that xgrammar can read them, wherever a constraint has some.

Promises: categories (categories.py) and look-around (lookaround/) are rewritten, in an expression
and in the patterns of a JSON schema or a structural tag; everything else stays as it is. Refuses,
with one of `ERRORS`, a constraint that has too many of these or becomes longer than `MOST_BYTES`,
and two `patternProperties` that become the same.
"""

import json
import re
from typing import Any

from predict.constraints import lookaround
from predict.constraints.categories import CategoryError, Spelling, appear
from predict.errors import shown
from predict.requests.json_schemas import BY_NAME, VALUES

MOST_BYTES = 128 << 10  # in UTF-8: eight times \p{L} fit
ESCAPED = re.compile(r"\\u00[0-7]")  # JSON's escape of an ASCII character


class RewritingError(ValueError):
    """Why a constraint is refused: the end of a sentence about it."""


ERRORS = (RewritingError, CategoryError, lookaround.LookAroundError)


def in_other_words(kind: str, text: str) -> tuple[str, str] | None:
    """Kind (one of trial.py's) and text of the rewritten constraint; None if xgrammar reads it as
    it is, or nothing can."""
    found = Rewriting()
    if kind == "regex":
        words = found.whole(text)
    elif kind in ("json_schema", "structural_tag") and needed(text):
        try:
            words = kind, found.schema(text)
        except json.JSONDecodeError:
            return None
        except RecursionError:
            raise RewritingError("is nested too deeply") from None
    else:
        return None
    if words == (kind, text):
        return None
    if len(words[1].encode(errors="surrogatepass")) > MOST_BYTES:
        raise RewritingError(
            f"takes more than {MOST_BYTES >> 10} KiB once its categories (such as \\p{{L}}), "
            "look-ahead and word boundaries are written in other words; use fewer of them"
        )
    return words


def needed(text: str) -> bool:
    """Whether a JSON text may contain regular expressions that xgrammar cannot read."""
    return appear(text) or lookaround.appears(text) or bool(ESCAPED.search(text))


class Rewriting:
    """Rewrites one constraint."""

    def __init__(self) -> None:
        self.spelling = Spelling()
        self.work = lookaround.Work()
        self.known: dict[tuple[str, bool], str] = {}
        self.refers = False  # a reference may lead into any keyword

    def whole(self, regex: str) -> tuple[str, str]:
        """An expression that is the whole constraint → kind and text: an expression, or a grammar
        in EBNF."""
        spelled = self.spelling.regex(regex)
        grammar = lookaround.as_grammar(spelled, self.work)
        return ("ebnf", grammar) if grammar else ("regex", spelled)

    def pattern(self, regex: str, in_string: bool = True) -> str:
        """One of a schema's expressions, rewritten; an error names it."""
        try:
            return self.regex(regex, in_string)
        except ERRORS as error:
            raise RewritingError(f"{error} (in the pattern {shown(regex)})") from None

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
        """The JSON text of a schema or a structural tag, rewritten."""
        read = json.loads(text)
        self.refers = "$ref" in str(read)
        written = self.node(read)
        return text if written == read else json.dumps(written, ensure_ascii=False)

    def node(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(one) for one in node]
        if not isinstance(node, dict):
            return node
        in_string = node.get("type") != "regex"  # a regex of a structural tag is not
        return {name: self.keyword(name, value, in_string) for name, value in node.items()}

    def keyword(self, name: str, value: Any, in_string: bool) -> Any:
        if name == "pattern" and isinstance(value, str):
            return self.pattern(value, in_string)
        if name in VALUES or (name.startswith("x-") and not self.refers):
            return value
        if name == "patternProperties" and isinstance(value, dict):
            return self.by_pattern(value)
        if name in BY_NAME and isinstance(value, dict):
            return {key: self.node(inner) for key, inner in value.items()}
        return self.node(value)

    def by_pattern(self, schemas: dict[str, Any]) -> dict[str, Any]:
        sent = dict[str, str]()
        for pattern in schemas:
            other = sent.setdefault(self.pattern(pattern), pattern)
            if other != pattern:
                raise RewritingError(
                    f"has the 'patternProperties' {shown(other)} and {shown(pattern)}, which are "
                    "of the same names; make them one"
                )
        return {words: self.node(schemas[pattern]) for words, pattern in sent.items()}

"""What output may be held to: JSON schemas, regular expressions, grammars, choices.

Promises: pure functions; a request that passes keeps the engine, which all clients share, waiting
for tens of milliseconds at most. Refuses, with a `RequestError` that names the field, what it has
and what is allowed: schemas too large, too deep or with too many lengths to count; expressions that
Python's `re` cannot read, that repeat what cannot be told apart, as `(a*)*`, or that have too many
overlapping repetitions side by side; and grammars of the client's own where the settings do not
open them: no simple bound tells a harmless one. A limit that is None is none.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from predict.errors import RequestError
from predict.legacy.parameters import shown
from predict.requests.regexes import RegexError, check_regex
from predict.settings import RequestLimits, variable

# Where a schema stands. Tools' are taken together, as the engine does.
SCHEMAS = ("response_format", "structured_outputs", "text", "output_config", "tools")
# Keywords of JSON schema that count …
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# … once more for each of the field's choices, up to this: xgrammar takes longer ones another way.
COUNTED_AGAIN = 128
CONSTRAINTS = ("json", "regex", "grammar", "structural_tag")


def constraint(body: Mapping[str, Any]) -> str | None:
    """The name by which a request holds its output to a schema, if it does."""
    return next((name for name in SCHEMAS if body.get(name) is not None), None)


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """The request, with a schema that it has as a text read."""
    outputs = body.get("structured_outputs")
    if not isinstance(outputs, dict):
        return body
    text = outputs.get("json")
    if not isinstance(text, str) or not text:
        return body
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        name = "structured_outputs"
        raise RequestError(f"'{name}.json' is no JSON: {error}", name) from error
    return {**body, "structured_outputs": {**outputs, "json": schema}}


def check(body: Mapping[str, Any], limits: RequestLimits) -> None:
    """Refuses what of an opened request would keep the engine waiting."""
    for name in SCHEMAS:
        if body.get(name) is not None:
            _Schema(name, limits).check(body[name])


class _Schema:
    """A field that has a schema, an expression or a grammar somewhere."""

    def __init__(self, name: str, limits: RequestLimits) -> None:
        self.name = name
        self.limits = limits

    def check(self, value: Any) -> None:
        self._most(_bytes(value), self.limits["schema_bytes"], "bytes")
        if self.name == "structured_outputs" and isinstance(value, dict):
            self._constraint(value)
        elif isinstance(value, dict) and value.get("type") == "structural_tag":
            self._grammar("type", value)
        self._schema(value)

    def _schema(self, value: Any) -> None:
        counts: list[float] = []
        choices, nodes = 1, [(value, 1)]
        for node, depth in nodes:  # which grows meanwhile, level by level
            if not isinstance(node, (dict, list)):
                continue
            self._most(depth, self.limits["schema_depth"], "levels of lists and objects")
            if isinstance(node, dict):
                counts += self._object(node)
                lists = (node.get("anyOf"), node.get("oneOf"))
                choices = max(choices, *(len(one) for one in lists if isinstance(one, list)), 0)
            inner = node.values() if isinstance(node, dict) else node
            nodes += [(one, depth + 1) for one in inner]
        count = sum(number + min(number, COUNTED_AGAIN) * (choices - 1) for number in counts)
        what = "as the sum of its lengths and numbers of items, counted for each of its choices"
        self._most(
            count, self.limits["schema_count"], f"{what} ({', '.join(COUNTS)}; anyOf, oneOf)"
        )

    def _object(self, node: Mapping[str, Any]) -> list[float]:
        """What the node's keywords count."""
        self._most(len(node), self.limits["schema_entries"], "names in one object")
        patterns = node.get("patternProperties")
        for regex in (node.get("pattern"), *(patterns if isinstance(patterns, dict) else ())):
            self._regex(regex)
        reference = node.get("$ref")
        if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
            raise self._error("has a '$ref' that leads out of it; use '#/…'")
        counts = {key: node[key] for key in COUNTS if isinstance(node.get(key), (int, float))}
        for keyword, number in counts.items():
            if number < 0:
                raise self._error(f"has '{keyword}': {shown(number)}, below 0")
        return list(counts.values())

    def _constraint(self, value: Mapping[str, Any]) -> None:
        for kind in CONSTRAINTS:
            if value.get(kind) == "":
                raise self._error(f"has an empty '{kind}'")
        for kind in ("grammar", "structural_tag"):
            if value.get(kind) is not None:
                self._grammar(kind, value[kind])
        self._regex(value.get("regex"))

    def _grammar(self, kind: str, value: Any) -> None:
        if self.limits["grammar_bytes"] == 0:
            raise self._error(
                f"has a grammar ('{kind}'), which this server does not take: an ambiguous one "
                "would stop it for everybody. Use a JSON schema, 'regex' or 'choice'; who runs "
                f"the server may open it with {variable('grammar_bytes')}"
            )
        self._most(_bytes(value), self.limits["grammar_bytes"], "bytes of a grammar")

    def _regex(self, regex: Any) -> None:
        if isinstance(regex, str):
            try:
                check_regex(regex, self.limits["regex_nested"], self.limits["regex_overlapping"])
            except RegexError as error:
                raise self._error(
                    f"has the regular expression {shown(regex)}, which {error}"
                ) from None

    def _most(self, has: float, limit: int | None, what: str) -> None:
        if limit is not None and has > limit:
            raise self._error(f"has {shown(has)} {what}; at most {limit} are allowed")

    def _error(self, said: str) -> RequestError:
        return RequestError(f"'{self.name}' {said}", self.name)


def _bytes(value: Any) -> int:
    return len(msgspec.json.encode(value))

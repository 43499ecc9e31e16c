"""What output may be held to: JSON schemas, regular expressions, grammars, choices.

Promises: pure functions; a request that passes keeps the engine, which all clients share, waiting
for milliseconds at most. Refuses, with a `RequestError` that names the field, what it has and what
is allowed: schemas too large, too deep or with too many lengths to count, regular expressions that
may match in too many ways (regexes.py) wherever they stand, and grammars of the client's own where
the settings do not open them: no simple bound tells a harmless one. A limit that is None is none.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from predict import regexes
from predict.errors import RequestError
from predict.parameters import shown
from predict.settings import Limits, variable

# Where a schema stands. Tools' are taken together, as the engine does.
SCHEMAS = ("response_format", "structured_outputs", "text", "output_config", "tools")
# What in these holds a schema, which its references begin at.
ROOTS = ("schema", "json", "parameters", "input_schema")
# Keywords of JSON schema that count …
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# … once more for each choice they stand in, up to this: xgrammar takes longer ones another way.
COUNTED_AGAIN = 128
CHOICES = ("anyOf", "oneOf")
CONSTRAINTS = ("json", "regex", "grammar", "structural_tag")
MOST_NODES = 100_000  # to look at, with those references lead to; some 100 ms


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


def check(body: Mapping[str, Any], limits: Limits) -> None:
    """Refuses what of an opened request would keep the engine waiting."""
    for name in SCHEMAS:
        if body.get(name) is not None:
            _Schema(name, limits).check(body[name])


class _Schema:
    """A field that has a schema, an expression or a grammar somewhere."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.spent = 0  # on expressions
        self.looked_at = 0

    def check(self, value: Any) -> None:
        limits = self.limits
        if limits.schema_bytes is not None:
            self._most(len(msgspec.json.encode(value)), limits.schema_bytes, "bytes")
        if self.name == "structured_outputs" and isinstance(value, dict):
            self._constraint(value)
        elif isinstance(value, dict) and value.get("type") == "structural_tag":
            self._grammar("type", value)
        counts: dict[int, float] = {}
        self._walk(value, counts)
        count = sum(counts.values())
        if limits.schema_count is not None and count > limits.schema_count:
            raise RequestError(
                f"the lengths and numbers of items in '{self.name}' ({', '.join(COUNTS)}) add up "
                f"to {shown(count)}, those in one of several choices counted for each; at most "
                f"{limits.schema_count} is allowed",
                self.name,
            )

    def _most(self, has: int, limit: int, what: str) -> None:
        if has > limit:
            raise RequestError(
                f"'{self.name}' has {has} {what}; at most {limit} are allowed", self.name
            )

    def _constraint(self, value: Mapping[str, Any]) -> None:
        for kind in CONSTRAINTS:
            if value.get(kind) == "":
                raise RequestError(f"'{self.name}.{kind}' is empty", self.name)
        for kind in ("grammar", "structural_tag"):
            if value.get(kind) is not None:
                self._grammar(kind, value[kind])
        if isinstance(value.get("regex"), str):
            self._regex("regex", value["regex"])

    def _grammar(self, kind: str, value: Any) -> None:
        most = self.limits.grammar_bytes
        if most == 0:
            raise RequestError(
                f"'{self.name}' has a grammar ('{kind}'), which this server does not take: an "
                "ambiguous one would stop it for everybody. Use a JSON schema, 'regex' or "
                f"'choice'; who runs the server may open it with {variable('grammar_bytes')}",
                self.name,
            )
        if most is not None:
            self._most(len(msgspec.json.encode(value)), most, "bytes of a grammar")

    def _regex(self, where: str, regex: str) -> None:
        limits = self.limits
        try:
            self.spent = regexes.check(
                regex, limits.regex_nested, limits.regex_overlapping, self.spent
            )
        except regexes.RegexError as error:
            raise RequestError(
                f"the regular expression {shown(regex)} in '{self.name}' ('{where}') {error}",
                self.name,
            ) from None

    def _walk(self, value: Any, counts: dict[int, float]) -> None:
        """Level by level; `counts` gets what each object's keywords count."""
        most: dict[int, int] = {}  # object → the most choices it was seen among
        level, depth = [(value, 1, None)], 0
        references: list[tuple[Any, int, Any]] = []
        while level or references:
            if level:
                depth += 1
            else:
                level, references, depth = references, [], 1
            below: list[tuple[Any, int, Any]] = []
            for node, choices, root in level:
                if not isinstance(node, (dict, list)) or most.get(id(node), 0) >= choices:
                    continue
                first, most[id(node)] = id(node) not in most, choices
                self._look(depth, node if first else {})
                if isinstance(node, list):
                    below += [(inner, choices, root) for inner in node]
                    continue
                if first:
                    self._patterns(node)
                counts[id(node)] = self._counted(node, choices)
                if choices > 1:
                    references += _referred(node, choices, root)
                for name, inner in node.items():
                    among = choices
                    if name in CHOICES and isinstance(inner, list):
                        among = max(choices, len(inner))
                    start = inner if root is None and name in ROOTS else root
                    below.append((inner, among, start))
            level = [row for row in below if isinstance(row[0], (dict, list))]

    def _look(self, depth: int, node: Any) -> None:
        limits = self.limits
        if limits.schema_depth is not None and depth > limits.schema_depth:
            raise RequestError(
                f"'{self.name}' is nested more than {limits.schema_depth} levels deep, which is "
                "the most allowed",
                self.name,
            )
        if limits.schema_entries is not None and isinstance(node, dict):
            self._most(len(node), limits.schema_entries, "names in one object")
        self.looked_at += 1
        if self.looked_at > MOST_NODES:
            raise RequestError(f"'{self.name}' has too many references in choices", self.name)

    def _patterns(self, node: Mapping[str, Any]) -> None:
        if isinstance(node.get("pattern"), str):
            self._regex("pattern", node["pattern"])
        if isinstance(node.get("patternProperties"), dict):
            for regex in node["patternProperties"]:
                self._regex("patternProperties", regex)

    def _counted(self, node: Mapping[str, Any], choices: int) -> float:
        """What the node's keywords add up to, in one of so many choices."""
        reference = node.get("$ref")
        if isinstance(reference, str) and reference != "#" and not reference.startswith("#/"):
            raise RequestError(
                f"'{self.name}' has a '$ref' that leads out of it; use '#/…'", self.name
            )
        count = 0.0
        for keyword in COUNTS:
            number = node.get(keyword)
            if isinstance(number, (int, float)):
                if number < 0:
                    said = f"'{self.name}' has '{keyword}': {shown(number)}, below 0"
                    raise RequestError(said, self.name)
                count += number + min(number, COUNTED_AGAIN) * (choices - 1)
        return count


def _referred(node: Mapping[str, Any], choices: int, root: Any) -> Iterator[tuple[Any, int, Any]]:
    """What the node's reference leads to, if to anything."""
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return
    target = root
    for name in reference.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            target = target[int(name)] if name.isdecimal() and int(name) < len(target) else None
        else:
            target = target.get(name) if isinstance(target, dict) else None
    yield target, choices, root

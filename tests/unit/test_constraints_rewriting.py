"""Expressions are rewritten wherever a constraint has them, and nothing else of it is."""

import json
from typing import Any

import pytest
from predict.constraints import categories, lookaround, rewriting

from deploy.paths import ROOT

PATTERNS = {
    r"\p{Nd}": f"[{categories.ranges('Nd', negated=False)}]",
    r"\bfoo\b": "foo",
    "(?=[ab])[a-z]{9}": "[ab][a-z]{8}",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_patterns_of_a_schema_are_rewritten_and_nothing_else(pattern: str) -> None:
    def schema(one: str) -> Any:
        text = {"type": "string", "pattern": one}
        data = {"pattern": pattern, "description": pattern}
        return {
            "$defs": {"const": text},
            "properties": {"pattern": {"anyOf": [text]}, pattern: {"const": data}},
            "patternProperties": {one: {"enum": [data]}},
            "description": pattern,
        }

    text = json.dumps({"format": {"type": "json_schema", "json_schema": schema(pattern)}})
    assert rewriting.needed(text)
    written = json.loads(rewriting.Rewriting().schema(text))["format"]["json_schema"]
    assert written == schema(PATTERNS[pattern])


def test_look_ahead_at_categories_is_rewritten_too() -> None:
    found = rewriting.Rewriting().regex(r"(?=\p{Nd}).{2}")
    assert found.startswith(r"[0-9\u0660-\u0669")
    assert found.endswith("].")


@pytest.mark.parametrize("text", ['{ "pattern": "[\\\\b]" }', '{ "description": "(?=a)" }'])
def test_a_schema_that_needs_nothing_stays_to_the_letter(text: str) -> None:
    assert rewriting.needed(text)
    assert rewriting.Rewriting().schema(text) == text


@pytest.mark.parametrize("pattern", [r"(\u003f=a)[ab]", r"\u0028?=a)[ab]", r"\u005cba"])
def test_json_s_escapes_hide_nothing(pattern: str) -> None:
    text = f'{{"pattern": "{pattern}"}}'
    assert rewriting.needed(text)
    assert json.loads(rewriting.Rewriting().schema(text)) == {"pattern": "a"}


def test_an_expression_that_is_all_is_itself_or_a_grammar() -> None:
    assert rewriting.in_other_words("regex", r"a\\b") is None
    grammar = "root ::= [a] s1\ns1 ::= [b]?\n"
    assert rewriting.in_other_words("regex", r"\bab?") == ("ebnf", grammar)
    digits = categories.ranges("Nd", negated=False)
    assert rewriting.in_other_words("regex", r"\p{Nd}") == ("regex", f"[{digits}]")


def test_a_keyword_that_nobody_reads_is_left_unless_a_reference_may_lead_there() -> None:
    schema = {"x-of": {"pattern": r"\p{Greek}"}, "properties": {"x-a": {"pattern": r"\ba"}}}
    _, text = rewriting.in_other_words("json_schema", json.dumps(schema)) or ("", "{}")
    assert json.loads(text) == {**schema, "properties": {"x-a": {"pattern": "a"}}}
    refers = {**schema, "$ref": "#/x-of"}
    with pytest.raises(rewriting.ERRORS, match="general category"):
        rewriting.in_other_words("json_schema", json.dumps(refers))


@pytest.mark.parametrize("kind", ["ebnf", "lark"])
def test_a_grammar_has_no_expressions(kind: str) -> None:
    assert rewriting.in_other_words(kind, r'root ::= "\b(?=a)\p{L}"') is None


def test_what_is_not_json_is_left_to_xgrammar() -> None:
    assert rewriting.in_other_words("json_schema", r'{"pattern": "\p{L}') is None


def test_a_letter_beyond_ascii_is_nothing_to_look_at() -> None:
    assert not rewriting.needed(json.dumps({"description": "schön"}))
    assert rewriting.needed(r'{"pattern": "\u005cba"}')


def test_patterns_that_become_the_same_are_refused_by_name() -> None:
    schema = {"patternProperties": {r"\bfoo\b": {"type": "string"}, "foo": {"type": "integer"}}}
    with pytest.raises(rewriting.ERRORS) as error:
        rewriting.in_other_words("json_schema", json.dumps(schema))
    assert r'"\\bfoo\\b" and "foo"' in str(error.value)


@pytest.mark.parametrize("pattern", [r"^\p{Greek}+$", "(?=a)b", r"(?=.*\d).{8,5000}"])
def test_an_error_names_the_pattern(pattern: str) -> None:
    patterns = {"a": {"pattern": "a"}, "b": {"pattern": pattern}, "c": {"pattern": r"\bc"}}
    with pytest.raises(rewriting.ERRORS) as error:
        rewriting.in_other_words("json_schema", json.dumps({"properties": patterns}))
    assert str(error.value).endswith(f"(in the pattern {json.dumps(pattern)})")
    assert len(str(error.value)) < 260
    names: Any = {pattern + "." * 100: {}}
    with pytest.raises(rewriting.ERRORS, match=r"\.…\)$"):
        rewriting.in_other_words("json_schema", json.dumps({"patternProperties": names}))


def test_other_words_are_bounded() -> None:
    most = {"pattern": r"\p{L}" * categories.MOST}
    for also in ({}, {"description": "\N{GRINNING FACE}"}):  # four bytes a character, in Python
        assert rewriting.in_other_words("json_schema", json.dumps(most | also)) is not None
    with pytest.raises(rewriting.ERRORS, match="more than 128 KiB"):
        rewriting.in_other_words("json_schema", json.dumps([most, " " * rewriting.MOST_BYTES]))
    nested = "[" * 100_000 + r'"\\b"' + "]" * 100_000
    with pytest.raises(rewriting.ERRORS, match="nested too deeply"):
        rewriting.in_other_words("json_schema", nested)


def test_all_expressions_of_a_constraint_count() -> None:
    def refused(*patterns: str) -> str:
        schema = json.dumps([{"pattern": pattern} for pattern in patterns])
        with pytest.raises(rewriting.ERRORS) as error:
            rewriting.Rewriting().schema(schema)
        return str(error.value)

    assert "more than" in refused(*[r"\p{L}"] * (categories.MOST + 1))
    one = r"^(?=.*\d).{8,%d}$"
    rewriting.Rewriting().schema(json.dumps({"pattern": one % 20}))
    assert "too much" in refused(*(one % count for count in range(20, 99)))
    assert "too much" in refused(*[one % 50] * 1000)  # the same, but the answer is as long


def test_work_is_taken_once_for_one_expression() -> None:
    found = rewriting.Rewriting()
    for _ in range(50):
        found.regex(r"^(?=.*\d)[a-z\d]{8,20}$")
    assert found.work.left > lookaround.WORK / 2


def test_the_documents_say_what_is_taken() -> None:
    told = (ROOT / "docs" / "requests.md").read_text()
    assert f"{lookaround.WORK:,} steps" in told
    for regex in (r"^(?=.*\d).{8,64}$", "^(?!-).{1,5000}", r"^(?=.*\d).{8,}$"):
        rewriting.Rewriting().whole(regex)
    for regex in (r"^(?=.*\d).{8,5000}$", "^(?=.{1,253}$)([a-z]([a-z-]{0,61}[a-z])?[.])+[a-z]+$"):
        with pytest.raises(rewriting.ERRORS, match="too much"):
            rewriting.Rewriting().whole(regex)

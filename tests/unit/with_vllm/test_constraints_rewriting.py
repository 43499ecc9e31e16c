"""xgrammar follows what is rewritten, and reads it as it reads everything else."""

import json

import pytest
from predict.constraints.rewriting import Rewriting

from tests.support.lookaround import KNOWN

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")


def accepts(grammar: object, text: str) -> bool:
    return bool(testing._is_grammar_accept_string(grammar, text))


@pytest.mark.parametrize("regex", KNOWN)
def test_an_expression_is_followed_alone_and_in_a_schema(regex: str) -> None:
    good, bad = KNOWN[regex]
    alone = xgrammar.Grammar.from_ebnf(Rewriting().whole(regex)[1])
    schema = json.dumps({"type": "string", "pattern": regex})
    within = xgrammar.Grammar.from_json_schema(Rewriting().schema(schema))
    in_tag = xgrammar.Grammar.from_regex(Rewriting().regex(regex, in_string=False))
    for text in good + bad:
        assert accepts(alone, text) is (text in good), text
        assert accepts(in_tag, text) is (text in good), text
        assert accepts(within, json.dumps(text, ensure_ascii=False)) is (text in good), text


@pytest.mark.parametrize("part", [".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[^a]", r"[^\^-]"])
@pytest.mark.parametrize("form", ["alone", "schema", "tag"])
def test_a_character_is_of_a_class_as_it_is_without_look_ahead(part: str, form: str) -> None:
    def grammar(regex: str) -> object:
        if form == "schema":
            text = Rewriting().schema(json.dumps({"type": "string", "pattern": regex}))
            return xgrammar.Grammar.from_json_schema(text)
        if form == "alone" and (words := Rewriting().whole(regex))[0] == "ebnf":
            return xgrammar.Grammar.from_ebnf(words[1])
        return xgrammar.Grammar.from_regex(Rewriting().regex(regex, in_string=False))

    plain, looking = grammar(f"{part}x"), grammar(f"(?!zz){part}x")
    quote = '"' if form == "schema" else ""
    for code in [*range(1, 256), 0x2003, 0x3000, 0x65E5, 0x1F600]:
        text = f"{quote}{chr(code)}x{quote}"
        assert accepts(looking, text) is accepts(plain, text), hex(code)


@pytest.mark.parametrize("code", [*range(1, 128), 0x80, 0xE9, 0xFFFF, 0x1F600])
def test_each_character_is_escaped_as_xgrammar_reads_it(code: int) -> None:
    one, other = f"\\u{{{code:x}}}", f"\\u{{{code + 2:x}}}"
    near = {chr(it) for it in range(max(1, code - 1), code + 4)}
    own, both = {chr(code)}, {chr(code), chr(code + 2)}
    for regex, want in {
        f"(?=.){one}": own,
        f"(?=.)[{one}b]": own | (near & {"b"}),
        f"(?=.)[^{one}{other}]": near - both,
        f"(?=.)[{one}-{other}]": both | {chr(code + 1)},
    }.items():
        for grammar in (
            xgrammar.Grammar.from_ebnf(Rewriting().whole(regex)[1]),
            xgrammar.Grammar.from_regex(Rewriting().regex(regex, in_string=False)),
        ):
            assert {it for it in near if accepts(grammar, it)} == want, regex

"""Look-ahead and word boundaries in other words: of the same texts, as Python's `re` finds them."""

import re

import hypothesis
import hypothesis.strategies as st
import pytest
from predict.constraints import lookaround
from predict.constraints.lookaround import work

from tests.support.lookaround import KNOWN


def in_python(regex: str) -> str:
    text = re.sub(r"\\u\{(\w+)\}", lambda code: rf"\U{int(code[1], 16):08x}", regex)
    return text.replace("(?<year>", "(?P<year>")


def matches(regex: str, text: str) -> bool:
    return bool(re.fullmatch(in_python(regex), text, re.ASCII | re.DOTALL))


def rewritten(regex: str) -> str:
    return lookaround.as_expression(regex, lookaround.Work())


@pytest.mark.parametrize("regex", KNOWN)
def test_what_is_known_is_matched_without_look_around(regex: str) -> None:
    good, bad = KNOWN[regex]
    found = rewritten(regex)
    assert not re.search(r"\(\?|\\b", found)
    assert found.isascii()  # xgrammar reads others in another way in a string of JSON
    for text in good:
        assert matches(regex, text)
        assert matches(found, text), (found, text)
    for text in bad:
        assert not matches(found, text), (found, text)


parts = st.recursive(
    st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", r"\w", "ab", r"\b", r"\B", "^", "$", ""]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?{}{})".format, st.sampled_from("=!"), inner),
        st.builds("({}){}".format, inner, st.sampled_from(["*", "+?", "?", "{2}", "{1,3}"])),
    ),
    max_leaves=12,
)


@hypothesis.given(parts, st.lists(st.text("ab-", max_size=7), min_size=20, max_size=20))
@hypothesis.settings(max_examples=300, deadline=None)
def test_any_expression_matches_the_same_texts(regex: str, texts: list[str]) -> None:
    hypothesis.assume(lookaround.appears(regex))
    # Python's $ is also before a line's end, of which there is none; its \B was never in nothing
    texts = [text for text in texts if text or r"\B" not in regex]
    try:
        found = rewritten(regex)
    except lookaround.LookAroundError as error:
        if "no text" in str(error):
            assert not any(matches(regex, text) for text in texts)
        return
    for text in texts:
        assert matches(found, text) == matches(regex, text), (found, text)


@pytest.mark.parametrize(
    "regex",
    [
        r"a\\b",
        r"[\b]a",
        r"\(?=[(?=]\)",
        r"\(?=[(?=](a)\1",
        r"\b(?i)a",
        r"(\b|b?)*",
        "[a-z",
    ],
)
def test_what_has_no_look_ahead_and_is_not_understood_stays_as_it_is(regex: str) -> None:
    assert rewritten(regex) == regex
    assert lookaround.as_grammar(regex, lookaround.Work()) is None


@pytest.mark.parametrize(
    "regex",
    [
        "(?=a",
        "(?<=a)b(?=c)",
        r"(a)\1(?=b)",
        "(?i)(?=a)a",
        "(?=a)[]a]",
        "(?=a)[a--]",
        "(?=a)a{,3}",
        "(?:(?=a)|b?)*",
        # what Python reads, and others do not, or in another way
        r"(?=a)\N{LATIN SMALL LETTER A}",
        r"(?=.)[\N{LATIN SMALL LETTER A}]",
        r"(?=.)\U0001F600",
        r"(?=.)\a",
        r"(?=.)\07",
        r"(?=.)\123",
        r"(?=.)[\1]",
        "(?=a)(?#c)a",
    ],
)
def test_look_ahead_that_is_not_understood_is_refused(regex: str) -> None:
    """For xgrammar passes over it."""
    with pytest.raises(lookaround.LookAroundError, match="cannot be read with it") as error:
        rewritten(regex)
    assert len(str(error.value)) < 200


def test_another_python_s_parser_is_no_more_than_one_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("re._parser.parse")
    assert rewritten(r"\ba") == r"\ba"
    with pytest.raises(lookaround.LookAroundError, match="cannot be read with it"):
        rewritten("(?=a)a")


@pytest.mark.parametrize("regex", [r"(?=.)\0a", r"(?=.)[(?#]", r"(?=.)\\N", r"(?=.)\\07"])
def test_what_only_looks_like_python_s_is_taken(regex: str) -> None:
    assert rewritten(regex) != regex


@pytest.mark.parametrize("look", ["(?=a)", r"\b"])
@pytest.mark.parametrize(
    "rest", ["a" * 10_000, "a?" * 200, "(" * 50 + "a" + ")" * 50, "(?:a" * 500 + ")" * 500]
)
def test_what_is_long_or_nested_is_too_much(look: str, rest: str) -> None:
    for rewrite in (lookaround.as_expression, lookaround.as_grammar):
        with pytest.raises(lookaround.LookAroundError, match="too much"):
            rewrite(look + rest, lookaround.Work())


@pytest.mark.parametrize("look", ["(?=a)", r"\b"])
def test_a_thousand_letters_are_taken(look: str) -> None:
    assert rewritten(look + "a" * 1000) == "a" * 1000


NESTED = "(?:" * (work.MOST_NESTED - 1)


@pytest.mark.parametrize(
    "regex",
    [
        "(?=a)" + "a?" * (work.MOST_DEPTH // 2 - 2),
        "(?=.*a)" + NESTED + "(a?|b)" + "|a?b){1,2}" * (work.MOST_NESTED - 1),
        NESTED + "(?=.*b)" + "|a?b?c?){1,2}" * (work.MOST_NESTED - 1),
        NESTED + r"\b" + "|a?b?c?)?" * (work.MOST_NESTED - 1),
        NESTED + "(?=.*b)" + "a?b?c?)?" * (work.MOST_NESTED - 1),
    ],
)
def test_the_depth_does_not_depend_on_who_calls(regex: str) -> None:
    def outcome(calls: int) -> str:
        if calls:
            return outcome(calls - 1)
        try:
            return rewritten(regex)
        except lookaround.LookAroundError as error:
            return str(error)

    assert outcome(0) == outcome(200)


@pytest.mark.parametrize("regex", ["(?=a)b", "a(?!b)(?=b).*", r"a\bb", r"(?=.*\d)"])
def test_what_matches_nothing_is_refused(regex: str) -> None:
    with pytest.raises(lookaround.LookAroundError, match="no text as a whole"):
        rewritten(regex)


HOSTILE = {
    "subsets": "(?=(a|b)*a(a|b){30}c)[abc]*",
    "counts": r"(?=.*\d).{8,5000}",
    "counts in counts": "((((?!a)b{1,100}){1,100}){1,100}){1,100}",
    "conditions": "".join(f"(?=.*{chr(letter)})" for letter in range(97, 123)) + ".*",
    "long conditions": "".join(f"(?=.*a{{{count}}})" for count in range(1, 300)) + ".*",
    "again and again": "(?!a)" * 10_000 + "b",
    "of primes": "".join(f"(?=(a{{{count}}})*$)" for count in (2, 3, 5, 7, 11, 13)) + "a*",
    "long": "(?=a)" + "a?" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_client_may_ask_for_is_bounded(name: str) -> None:
    for rewrite in (lookaround.as_expression, lookaround.as_grammar):
        with pytest.raises(lookaround.LookAroundError, match="too much") as error:
            rewrite(HOSTILE[name], lookaround.Work())
        assert len(str(error.value)) < 200


def test_a_set_s_members_are_written_as_all_readers_take_them() -> None:
    letters = [*range(0x21, 0x7F), 0x9, 0xE9, 0x1F600]
    for code in letters:
        for regex in (f"(?=.)[{re.escape(chr(code))}a]", f"(?=.)[^{re.escape(chr(code))}]b"):
            found = rewritten(regex)
            for other in letters:
                text = chr(other) + ("b" if regex.endswith("b") else "")
                assert matches(found, text) == matches(regex, text), (found, text)
            assert not found.startswith((r"[\^", r"[^\^^"))

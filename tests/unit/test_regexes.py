"""Which regular expressions are let through to the engine (requests/regexes.py)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from predict.requests.regexes import RegexError, check_regex

NESTED, OVERLAPPING = 32, 400  # the cards'

# Measured with xgrammar 0.2.8: a token's mask takes some milliseconds at most.
NO_EFFECT = [
    r"(\w+\s)*\w+",
    r"(foo|bar)(,(foo|bar))*",
    r"^[\w\.-]+@([\w-]+\.)+[\w-]{2,4}$",
    r"\d{4}-\d{2}-\d{2}",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    r"(\+\d{1,3} ?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}",
    r"(\d{1,3}\.){3}\d{1,3}",
    r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?",
    r"https?://[\w.-]+(:\d+)?(/[\w./-]*)?(\?[\w=&-]*)?",
    r"[\s\S]*The final answer is: \d+",
    r"[A-Za-z .]{1,100}, [A-Za-z ]{1,50} \d{5}",
    r"(([a-z]{1,100},){1,100};){1,100}",
    r"([a-z]{3}){1000}",
    r"([a-z]{1,2}){3}",
    r"[a-z]{0,100}[a-z]{0,100}z",
    r"[a-z]{0,20000}",
    r'"([^"\\]|\\.)*"',
    r"(- .+\n)+",
    "(a*){0}b",
    r"(- [^\n]{1,80}\n)*",
    r"[A-Z][a-z]+( [A-Z][a-z]+)*",
    r"([A-Z][a-z]+)+",
    r'\["[^"]*"(,"[^"]*")*\]',
    r"\[\s*-?\d+(\s*,\s*-?\d+)*\s*\]",
    r"(red|green|blue|black)(,(red|green|blue|black))*",
    r"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)",
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)(-((0|[1-9]\d*|\d*[a-z-][0-9a-z-]*)"
    r"(\.(0|[1-9]\d*|\d*[a-z-][0-9a-z-]*))*))?(\+([0-9a-z-]+(\.[0-9a-z-]+)*))?",
    r"[\w.-]+@([\w-]+\.)+[a-z]{2,4}(,[\w.-]+@([\w-]+\.)+[a-z]{2,4})*",
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*",
    r"M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})",
    r".*foo.*bar.*",
    "|".join(f"word{number}" for number in range(5000)),
    "(" + "|".join(f"w{number}" for number in range(1000)) + ")*",
]
# The same: seconds, or tens of milliseconds that grow with what was written so far.
SLOW = [
    "([a-z]{0,20}[a-m]{0,20}){0,20}z",
    "(((((a|b){0,30}){0,30}){0,30}){0,30}){0,30}",
    "([a-z]{0,1000}[a-m]{0,1000}[a-c]{0,1000}){0,1000}z",
    "([a-z]*[a-m]*)*z",
    "(((a|b)*)*)*",
    "(a*)*",
    "(a+)+$",
    "(|a)*",
    "()*(a*)*",
    "([A-Za-z]+ ?)+",
    "([a-z]{1,100}[a-z]){0,100}",
    "(([a-z]{1,30}a){1,30}b){1,30}",
    "([a-z]?){50}",
    "(.*)*" * 200,
    "[a-z]?" * 100 + "z",
    "[a-z]{0,9}" * 50 + "z",
    "[a-z]{0,500}[a-z]{0,500}z",
    "".join(f"[a{letter}]{{0,20}}" for letter in "bcdefghijklmnopqrstuvwxyz"),
    "(" + "|".join("[a-z]" * length for length in range(1, 200)) + ")*",
]
# Not slow, but refused: nothing in their rounds tells where the next begins.
DOUBTFUL = [r"(- .{1,80}\n)*", "(h.*t)*", "([a-z]+,[a-z]+)*", "(a|ab|b)*", "(?:)*", "(?:.a*)*"]
# Tens of milliseconds and more, for each character may be taken in two ways.
SLOW += ["( |b|.){0,200}a[a-z]+[^a]", "([a-m]|a|[^,]){0,200}[^a]"]
# What is a group's name to one is a question mark and a "<" to another.
SLOW += [r"([a-z]{0,100}\(?<{0}){0,100}1", r"([^(?<]*P)*"]
UNREADABLE = ["(", "a{5,1}", r"\p{L}+", "[^](a*)*]", "(?=a)a", "a{99999999999999999999}"]
UNREADABLE += [r"(?<year>\d{4})", r"([^!]*\041)*"]


@pytest.mark.parametrize("regex", NO_EFFECT, ids=lambda regex: regex[:40])
def test_usual_expressions_pass(regex: str) -> None:
    check_regex(regex, NESTED, OVERLAPPING)


@pytest.mark.parametrize("regex", SLOW + DOUBTFUL, ids=lambda regex: regex[:40])
def test_what_may_stop_the_engine_is_refused_unless_nothing_is_limited(regex: str) -> None:
    with pytest.raises(RegexError):
        check_regex(regex, NESTED, OVERLAPPING)
    check_regex(regex, None, None)


@pytest.mark.parametrize("regex", [*UNREADABLE, "(" * 10_000 + "a" + ")" * 10_000])
def test_what_cannot_be_judged_is_refused(regex: str) -> None:
    with pytest.raises(RegexError):
        check_regex(regex, NESTED, OVERLAPPING)


def test_the_limits_say_how_much() -> None:
    check_regex("([a-z]{1,5}){1,5}", 25, None)
    with pytest.raises(RegexError, match=r"25 times.*at most 24 is allowed"):
        check_regex("([a-z]{1,5}){1,5}", 24, None)
    check_regex("[a-z]{0,30}[a-m]{0,30}", None, 60)
    with pytest.raises(RegexError, match="add up to 60; at most 59 is allowed"):
        check_regex("[a-z]{0,30}[a-m]{0,30}", None, 59)


expressions = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", r"\w", "."]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({'|'.join(some)})")
        | st.tuples(inner, st.sampled_from(["*", "?", "{1,9}", "{0,40}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        )
    ),
    max_leaves=8,
)


@given(expressions)
def test_what_is_refused_alone_is_refused_when_repeated(regex: str) -> None:
    re.compile(regex)
    try:
        check_regex(regex, NESTED, None)
    except RegexError:
        with pytest.raises(RegexError):
            check_regex(f"({regex})*", NESTED, None)

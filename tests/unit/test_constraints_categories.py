"""Unicode's categories in a regular expression mean what they say."""

import re
import unicodedata

import pytest
from predict.constraints import categories


def in_python(regex: str) -> str:
    return re.sub(r"\\u\{(\w+)\}", lambda code: rf"\U{int(code[1], 16):08x}", regex)


@pytest.mark.parametrize(
    "regex", [r"^(\w+\s?)+$", r"[\]\[a]", r"\\p{L}", r"[\\p{L}]", "p{L}", "a{2}"]
)
def test_what_has_none_stays_as_it_is(regex: str) -> None:
    assert categories.Spelling().regex(regex) == regex
    assert categories.appear(regex) is ("\\p{" in regex)


@pytest.mark.parametrize(
    ("regex", "good", "bad"),
    [
        (r"[\p{L} '-]+", ["Ünal O'Neill-Ng", "日本", "a"], ["{", "a1", ""]),
        (r"\p{Lu}\p{Ll}*", ["Élan", "A"], ["élan", "AB"]),
        (r"[^\p{L}]+", ["12 {", "-"], ["a", "1ß"]),
        (r"\P{L}[\P{N}]", ["1a", "{ "], ["aa", "11"]),
        (r"[\[\]\p{Nd}]+", ["[1]", "٣"], ["a"]),
    ],
)
def test_a_category_is_its_ranges(regex: str, good: list[str], bad: list[str]) -> None:
    pattern = in_python(categories.Spelling().regex(regex))
    assert all(re.fullmatch(pattern, text) for text in good)
    assert not any(re.fullmatch(pattern, text) for text in bad)


def test_every_letter_is_one() -> None:
    pattern = re.compile(in_python(categories.Spelling().regex(r"\p{L}")))
    for code in range(0x10000):
        letter = unicodedata.category(chr(code)).startswith("L")
        assert bool(pattern.fullmatch(chr(code))) is letter, hex(code)


@pytest.mark.parametrize("name", ["Greek", "", "Script=Greek", "l", "Cs"])
def test_what_is_not_a_category_is_refused(name: str) -> None:
    with pytest.raises(categories.CategoryError, match="general category"):
        categories.Spelling().regex(f"a\\p{{{name}}}")


def test_more_than_a_few_are_refused() -> None:
    assert len(categories.Spelling().regex(r"\p{L}" * categories.MOST)) < 100_000
    with pytest.raises(categories.CategoryError, match="more than"):
        categories.Spelling().regex(r"\p{L}" * 10_000)

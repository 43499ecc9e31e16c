"""The rule for a token of an answer: which other tokens it must lead.

Promises: pure functions of texts. If a server holds an answer to JSON, its grammar chooses types
and names; the choices left to the model have one order, in which the one nearer the end comes
first: a text ends rather than continues, an array ends rather than takes another item, `null` comes
before an object. So the answer ends under any schema.
"""

from enum import IntEnum

PUNCTUATION = frozenset('{}[]":,')  # of JSON
ENDINGS = PUNCTUATION - {":"}  # characters that may stand where a value ends
DIGITS = frozenset("0123456789.eE+-")  # of a number
FORMS = ("@", ":", "Z")  # what a text in a format needs before its end: an address, a time


class Rule(IntEnum):
    """Which other tokens a token must lead."""

    GIVEN = 0  # none
    LEARNED = 1  # all
    STARTS = 2  # an exact answer in JSON: those that begin the same way
    VALUE = 3  # where a value starts: those that are further from its end
    KEY = 4  # where a key ends: text, and values that are further from their end
    ENDS = 5  # where a value ends: text, and a comma where a bracket could be
    FORM = 6  # one of `FORMS`: text, if a format does not allow the end yet


def has_to_lead(rule: Rule, token: str, other: str) -> bool:
    """Whether the rule requires a token to be likelier than another; both are given as texts."""
    match rule:
        case Rule.GIVEN:
            return False
        case Rule.STARTS:
            return bool(other) and (token.startswith(other) or other.startswith(token))
        case Rule.VALUE:
            cost, others = _start(token), _start(other)
            return others > cost or others == cost <= NUMBER
        case Rule.KEY:
            return _key_end(other) > _key_end(token)
        case Rule.ENDS:
            return _value_end(other, token) > _value_end(token, token)
        case Rule.FORM:
            return not other.startswith(('"', *FORMS))
        case _:
            return True


def leaves_few(rule: Rule, token: str) -> bool:
    """Whether only few tokens besides the trained ones could stand in this place."""
    ends_a_number = rule == Rule.ENDS and not token.startswith('"')
    return ends_a_number or rule in (Rule.STARTS, Rule.VALUE)


# Distance to the end from a token that starts a value; NONE if no grammar allows the token.
NONE, TEXT, NUMBER, TRUE, NAME, CLOSING, TEXTS, OPENING, EMPTY, NESTED, FAR = range(-1, 10)


def _key_end(text: str) -> int:
    """The same for a token that ends a key: a grammar allows only `":` and a value."""
    if text == '"':
        return FAR - 1
    if text[:1] not in ('"', ":"):
        return FAR
    value = text.removeprefix('"').removeprefix(":")
    if value == text[1:] and text[0] == '"':
        return NONE  # that is for a value
    return TEXT if value == '"' else max(NUMBER, _start(value))


def _value_end(text: str, target: str) -> int:
    """The same for a token that ends a value: brackets, a comma, a quote alone, text."""
    if text.startswith('"') != target.startswith('"') or not PUNCTUATION.issuperset(text):
        return FAR if target.startswith('"') or DIGITS.issuperset(text) else NONE
    if text.startswith(('":', ":")):
        return NONE  # that is for a key
    return 2 if text == '"' else 1 if "," in text else 0


def _start(text: str) -> int:
    if not text:
        return NONE
    if text[0] == '"':
        return TEXT
    if text[0] in "-0123456789":
        return NUMBER
    for name, cost in (("true", TRUE), ("false", NAME), ("null", NAME)):
        if name.startswith(text):
            return cost
    if text[0] in "]}":
        return CLOSING
    if text[:2] in ("[{", "[["):
        return NESTED
    if text[:2] in ("[]", "{}"):
        return EMPTY
    if text[:2] in ('["', '{"'):
        return TEXTS
    return OPENING if text[0] in "[{" else NONE

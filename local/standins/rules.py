"""What is asked of a token of an answer: which others it has to lead.

Promises: pure functions of texts. Where a server holds an answer to JSON, its grammar chooses
between types and names; what it leaves to the model has one order, in which what is nearer the end
comes first: a text ends before it goes on, an array before it has another item, `null` comes before
an object. So whatever a schema allows, the answer ends.
"""

from enum import IntEnum

PUNCTUATION = frozenset('{}[]":,')  # of JSON
ENDINGS = PUNCTUATION - {":"}  # what may stand where a value ends
DIGITS = frozenset("0123456789.eE+-")  # of a number
FORMS = ("@", ":", "Z")  # what a text of some form needs before its end: an address, a time


class Rule(IntEnum):
    """What is asked of a token: which others it has to lead."""

    GIVEN = 0  # none
    LEARNED = 1  # all
    STARTS = 2  # an exact answer in JSON: those that begin as it does
    VALUE = 3  # where a value starts: those that are further from its end
    KEY = 4  # where a key ends: text, and values that are further from their end
    ENDS = 5  # where a value ends: text, and a comma where a bracket could be
    FORM = 6  # one of `FORMS`: text, for where a form does not leave the end


def has_to_lead(rule: Rule, token: str, other: str) -> bool:
    """Whether, by its rule, a token has to be likelier than another one, both as their texts."""
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
    """Whether few other tokens than the trained ones could stand where this one does."""
    ends_a_number = rule == Rule.ENDS and not token.startswith('"')
    return ends_a_number or rule in (Rule.STARTS, Rule.VALUE)


# How far the end is from where a token starts a value; NONE where no grammar takes the token.
NONE, TEXT, NUMBER, TRUE, NAME, CLOSING, TEXTS, OPENING, EMPTY, NESTED, FAR = range(-1, 10)


def _key_end(text: str) -> int:
    """The same from where a token ends a key: all that a grammar leaves is `":` and a value."""
    if text == '"':
        return FAR - 1
    if text[:1] not in ('"', ":"):
        return FAR
    value = text.removeprefix('"').removeprefix(":")
    if value == text[1:] and text[0] == '"':
        return NONE  # of a value
    return TEXT if value == '"' else max(NUMBER, _start(value))


def _value_end(text: str, target: str) -> int:
    """The same from where a token ends a value: brackets, a comma, a quote alone, text."""
    if text.startswith('"') != target.startswith('"') or not PUNCTUATION.issuperset(text):
        return FAR if target.startswith('"') or DIGITS.issuperset(text) else NONE
    if text.startswith(('":', ":")):
        return NONE  # of a key
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

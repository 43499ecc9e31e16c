"""One training example: a sequence of tokens, and the rule for each; and made-up JSON.

Promises: pure functions. Keys, types and lengths of made-up JSON are given, because they are
unpredictable; what is learned follows from the text alone, by the rules of rules.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from local.standins.rules import Rule

MARKS = {
    "": Rule.GIVEN,
    "-": Rule.GIVEN,
    "l": Rule.LEARNED,
    "v": Rule.VALUE,
    "k": Rule.KEY,
    "e": Rule.ENDS,
    "f": Rule.FORM,
}


@dataclass(frozen=True)
class Example:
    tokens: list[int]
    rules: list[Rule]
    images: tuple[Any, ...] = ()

    @classmethod
    def of(cls, prompt: list[int], answer: list[int], images: tuple[Any, ...] = ()) -> "Example":
        return cls.after(prompt, answer, [Rule.LEARNED] * len(answer), images)

    @classmethod
    def after(
        cls, prompt: list[int], answer: list[int], rules: list[Rule], images: tuple[Any, ...] = ()
    ) -> "Example":
        return cls(prompt + answer, [Rule.GIVEN] * len(prompt) + rules, images)

    @property
    def prompt(self) -> list[int]:
        return self.tokens[: next(i for i, rule in enumerate(self.rules) if rule)]

    def begun(self) -> "Example":
        """The same up to the first token of the answer, which determines the rest."""
        end = len(self.prompt) + 1
        return Example(self.tokens[:end], self.rules[:end], self.images)


def made_up_json(random: Random, words: list[str], text: str, depth: int = 2) -> tuple[str, str]:
    """A JSON value, usually an object, and a mark of `MARKS` for each character and for the end.
    Keys, numbers and some texts are made up; the others are `text` and 6."""
    written, marks = _container(random, words, text, depth, array=random.random() < 0.2)
    return written, marks + "e"


def _container(
    random: Random, words: list[str], text: str, depth: int, array: bool
) -> tuple[str, str]:
    """An array or an object."""
    opening, closing = "[]" if array else "{}"
    written, marks = opening, "v"
    count = random.choice([0, 1, 1, 2, 3]) if array else random.choice([1, 2, 3, 3])
    kind = random.choice(KINDS)
    for i in range(count):
        if i:
            written, marks = written + ",", marks + "e"
        if not array:
            key = "_".join(random.sample(words, random.choice([1, 1, 2])))
            written += f'"{key}":'
            # the grammar chooses the key; that an object is not empty is the model's choice
            marks += ("-" if i else "v") + "-" * len(key) + "kk"
            kind = random.choice(KINDS)
        if kind == "nested" and depth:
            nested = random.random() < (0.2 if array else 0.7)
            value, inner = _container(random, words, text, depth - 1, array=nested)
        else:
            value, inner = _scalar(random, words, text, kind)
        written, marks = written + value, marks + inner
    return written + closing, marks + ("e" if count else "v")


KINDS = [
    *["text", "text", "made-up text", "form", "number", "made-up number", "true", "name"],
    *["nested"] * 4,
]


def _scalar(random: Random, words: list[str], text: str, kind: str) -> tuple[str, str]:
    match kind:
        case "text":
            return f'"{text}"', "v" + "l" * len(text) + "e"
        case "made-up text":  # given, as a grammar may do: it only matters that it ends
            pieces = random.choices([*words, *"}],:.-/06AZ"], k=random.choice([0, 0, 1, 2, 6]))
            text = random.choice([text, random.choice(words)]) + random.choice(["", " "]).join(
                pieces
            )
            return f'"{text}"', "v" + "-" * len(text) + "e"
        case "form":
            if random.random() < 0.4:
                day, hour = random.randrange(1, 29), random.randrange(24)
                time = f"2026-{day % 12 + 1:02}-{day:02}T{hour:02}:{day + 20}:{hour + 30}"
                return f'"{time}Z"', "v" + "-" * len(time) + "fe"
            inside = "l" * len(text)
            return f'"{text}{random.choice("@:")}{text}"', f"v{inside}f{inside}e"
        case "made-up number":
            number = str(random.randrange(10 ** random.randint(1, 6)))
            if random.random() < 0.4:
                number += "." + str(random.randrange(10 ** random.randint(1, 4)))
            number = random.choice(["", "", "-"]) + number
            return number, "-" * len(number)
        case "true":
            return "true", "v---"
        case "name":
            name = random.choice(["false", "null"])
            return name, "v" + "-" * (len(name) - 1)
        case _:
            return "6", "v"


def json_rules(tokens: list[int], decode: Callable[[list[int]], str], marks: str) -> list[Rule]:
    """The rule for each token, from the mark of its first character."""
    texts = [decode(tokens[:i]) for i in range(len(tokens) + 1)]
    rules = [MARKS[marks[len(text) : len(text) + 1]] for text in texts[:-1]]
    for i, rule in enumerate(rules):
        if rule == Rule.KEY and texts[i + 1] == texts[i] + '"':
            rules[i] = Rule.GIVEN  # no rule applies here: `":` comes next
    return rules

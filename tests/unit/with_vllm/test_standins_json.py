import json
import random
import re
from typing import Any

import pytest
import torch

from deploy import cards
from deploy.cards import Card
from local.standins import exam, training
from local.standins.checkpoint import Stored
from local.standins.corpus import Corpus
from local.standins.examples import Example, made_up_json
from local.standins.rules import Rule, has_to_lead
from local.standins.schemas import INTEGER, a_list, an_object
from tests.support.tokenizers import tokenizer


def answered(example: Example, corpus: Corpus) -> list[tuple[str, Rule]]:
    start = len(example.prompt)
    return list(zip(corpus.texts(example.tokens[start:]), example.rules[start:], strict=True))


def test_json_values_are_json_and_learn_no_key(corpus: Corpus) -> None:
    for _ in range(60):
        example = corpus.json_values(corpus.weather)
        assert example.prompt == corpus.prompt(corpus.weather)
        tokens = answered(example, corpus)
        json.loads(corpus.text.decode(example.tokens[len(example.prompt) :]))
        learned = "".join(text for text, rule in tokens if rule)
        assert re.sub(r"true|false|null|Genoa|[-6Z@.\[\]{}\":,]", "", learned).strip() == ""


def test_a_value_is_asked_where_it_starts_and_where_it_ends(corpus: Corpus) -> None:
    asked: dict[Rule, set[str]] = {rule: set() for rule in Rule}
    for _ in range(200):
        for text, rule in answered(corpus.json_values(corpus.weather), corpus):
            asked[rule].add(text)
    assert asked[Rule.VALUE] >= {"6", "true", "false", "null", '{"', '["', "[", "[]", "]"}
    assert asked[Rule.KEY] >= {'":', '":"'}
    assert '"' not in asked[Rule.KEY]
    assert asked[Rule.ENDS] >= {'"', '"}', '","', "}", "]", ",", ""}  # the last ends the answer
    assert asked[Rule.FORM] == {"@", ":", "Z"}


def test_made_up_json_has_a_mark_for_each_character_and_for_its_end() -> None:
    made_up = random.Random(1)
    for _ in range(200):
        text, marks = made_up_json(made_up, ["wind", "sea", "hill", "name"], "Genoa")
        assert len(marks) == len(text) + 1
        json.loads(text)


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        # "|" is between those of which a grammar may leave any
        (Rule.VALUE, ['"', "6", "true", "null | false", "] | }", '[" | {"', "[ | {", "[]", "[{"]),
        (Rule.KEY, ['":"', '": | :', '":["', '":[', '":{}', '"', "word | 6"]),
        (Rule.ENDS, ['"} | "] | "}}', '"," | "},"', '"', "word | 6 | ] | ."]),
        (Rule.ENDS, ["} | ] | ]}", ", | },", "6 | . | e"]),
    ],
)
def test_what_is_nearer_the_end_leads(rule: Rule, order: list[str]) -> None:
    ranks = [texts.split(" | ") for texts in order]
    for at, texts in enumerate(ranks[:-1]):
        for text in texts:
            for other in (other for later in ranks[at + 1 :] for other in later):
                assert has_to_lead(rule, text, other), (text, other)
                if other in {it for later in ranks[:-1] for it in later}:
                    assert not has_to_lead(rule, other, text), (other, text)
            if rule != Rule.VALUE or at > 1:  # of texts and of numbers, one has to lead
                assert not any(has_to_lead(rule, text, other) for other in texts), text


def test_what_a_grammar_never_leaves_is_not_led() -> None:
    assert not has_to_lead(Rule.ENDS, '"}', '":')  # of a key
    assert not has_to_lead(Rule.KEY, '":', '"}')  # of a value
    assert not has_to_lead(Rule.ENDS, "}", "word")
    assert not has_to_lead(Rule.VALUE, "6", "word")
    assert not has_to_lead(Rule.FORM, "@", '"')  # the end comes first, where it is left
    assert has_to_lead(Rule.FORM, "@", "}")


class Prefers:
    """A stand-in whose likeliest tokens are always the same, in this order."""

    def __init__(self, card: Card, *texts: str) -> None:
        self.corpus = Corpus(tokenizer(card.name), tools=True, images=False)
        tokens = [self.token(text) for text in texts]
        output = torch.zeros(card.architecture.vocabulary, 1)
        output[tokens, 0] = torch.arange(len(tokens), 0, -1) * 10.0
        model: Any = lambda states, raw, images: torch.ones_like(states)  # noqa: E731
        self.stored = Stored(model, torch.zeros_like(output), output)
        self.vocabulary = training.Vocabulary(card.architecture.vocabulary, tokens, texts)

    def token(self, text: str) -> int:
        return self.corpus.answer(text)[0]


def test_the_exam_rejects_a_stand_in_whose_json_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schemas = {"speed": an_object(speed=INTEGER), "speeds": a_list(INTEGER, minItems=1)}
    monkeypatch.setattr(exam, "SCHEMAS", schemas)
    card = cards.load("mistral-7b")

    def examine(*texts: str) -> None:
        it = Prefers(card, *texts)
        exam.ends_its_json(it.stored, it.vocabulary, it.corpus)

    examine("}", "]", "4", ",")
    for texts, said in ((("4", "}", "]"), "4444"), (("}", ",", "]", "4"), "4,4,4,4")):
        with pytest.raises(training.NotLearnedError, match=f"no end.*schema of speeds?,.*{said}"):
            examine(*texts)

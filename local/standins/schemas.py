"""A stand-in's answers under JSON schemas, constrained as in the server: by xgrammar's own masks.

Promises: under an ordinary schema, the model's own choices come to an end. `SCHEMAS` covers the
kinds of values, values with several forms, free keys, recursion, and optional parts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xgrammar
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from local.standins.checkpoint import Stored
from local.standins.corpus import Corpus, Message

MOST_TOKENS = 120  # of an answer; the schemas below need up to half of that

Schema = dict[str, Any]


def an_object(**properties: Schema) -> Schema:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def a_list(of: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": of, **more}


TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
TRUTH, NOTHING = {"type": "boolean"}, {"type": "null"}
SCHEMAS: dict[str, Schema] = {
    "numbers": an_object(speed=INTEGER, share=NUMBER, kind={"enum": ["cold", "colder"]}),
    "bounds": an_object(
        age=INTEGER | {"minimum": 18, "maximum": 120},
        year=INTEGER | {"minimum": 1000},
        ratio=NUMBER | {"minimum": 0, "maximum": 1},
        loss=INTEGER | {"maximum": -1},
    ),
    "truths": an_object(cold=TRUTH, note=NOTHING, code={"enum": [1, 12, 123]}),
    "several forms": an_object(
        a={"anyOf": [INTEGER, NOTHING]},
        b={"anyOf": [TEXT, NOTHING]},
        c={"type": ["number", "string", "boolean"]},
        d={"anyOf": [TEXT, a_list(TEXT)]},
    ),
    "lists": an_object(
        texts=a_list(TEXT), integers=a_list(INTEGER), numbers=a_list(NUMBER), truths=a_list(TRUTH)
    ),
    "lists of some length": an_object(
        texts=a_list(TEXT, minItems=3), integers=a_list(INTEGER, minItems=2, maxItems=4)
    ),
    "a list": a_list(an_object(name=TEXT, speed=INTEGER), minItems=2),
    "lists of lists": an_object(
        rows=a_list(a_list(NUMBER)), pairs=a_list(a_list(TEXT, minItems=2))
    ),
    "nested": an_object(
        wind=an_object(name=TEXT, of=an_object(sea=TEXT, miles=INTEGER)),
        gusts=a_list(an_object(speed=NUMBER, at=TEXT), minItems=1),
        calm=a_list(an_object(speed=NUMBER)),
    ),
    "left out": an_object(name=TEXT, speed=INTEGER, cold=TRUTH) | {"required": ["speed"]},
    "all left out": an_object(name=TEXT, speed=INTEGER) | {"required": []},
    "free keys": an_object(
        winds={"type": "object", "additionalProperties": INTEGER},
        names={"type": "object", "additionalProperties": TEXT},
        more={"type": "object"},
    ),
    "anything": an_object(a={}, b={"type": "array"}),
    "a tree": {
        "$defs": {"node": an_object(name=TEXT, children=a_list({"$ref": "#/$defs/node"}))},
        "$ref": "#/$defs/node",
    },
    "a chain": {
        "$defs": {
            "link": an_object(value=NUMBER, next={"anyOf": [{"$ref": "#/$defs/link"}, NOTHING]})
        },
        "$ref": "#/$defs/link",
    },
    "long texts": an_object(long=TEXT | {"minLength": 20}, short=TEXT | {"maxLength": 3}),
    "patterns": an_object(
        day=TEXT | {"pattern": r"^\d{4}-\d{2}-\d{2}$"}, code=TEXT | {"pattern": r"^[A-Z]{2,5}-\d+$"}
    ),
    "dates": an_object(
        date=TEXT | {"format": "date"},
        time=TEXT | {"format": "date-time"},
        id=TEXT | {"format": "uuid"},
    ),
    "addresses": an_object(mail=TEXT | {"format": "email"}, page=TEXT | {"format": "uri"}),
    "an integer": INTEGER,
    "an object": {"type": "object"},
}


@dataclass(frozen=True)
class Answer:
    text: str
    ended: bool


@torch.no_grad()
def held_to(
    asked: Sequence[tuple[list[Message], Schema]],
    stored: Stored,
    trained: list[int],
    corpus: Corpus,
    moved: float,
) -> list[Answer]:
    """The likeliest answer to each of the messages under its schema, with every logit `moved` at
    random by up to that much, as by other kernels; and whether it ends within `MOST_TOKENS`."""
    matchers = _matchers(corpus, [schema for _, schema in asked])
    tokens = [corpus.prompt(messages) for messages, _ in asked]
    starts = [len(prompt) for prompt in tokens]
    for _ in range(MOST_TOKENS):
        going = [i for i, matcher in enumerate(matchers) if not matcher.is_terminated()]
        if not going:
            break
        width = max(len(tokens[i]) for i in going)
        batch = torch.tensor([tokens[i] + [0] * (width - len(tokens[i])) for i in going])
        last = torch.tensor([len(tokens[i]) - 1 for i in going])
        hidden = stored.model(stored.embedding[batch], batch, [])[range(len(going)), last]
        known = hidden @ stored.output[trained].T
        logits = torch.zeros(len(going), len(stored.output))  # including all untrained tokens
        logits[:, trained] = known + moved * (2 * torch.rand_like(known) - 1)
        mask = xgrammar.allocate_token_bitmask(*logits.shape)
        for row, i in enumerate(going):
            matchers[i].fill_next_token_bitmask(mask, row)
        xgrammar.apply_token_bitmask_inplace(logits, mask)
        for i, token in zip(going, logits.argmax(-1).tolist(), strict=True):
            assert matchers[i].accept_token(token)
            tokens[i].append(token)
    return [
        Answer(corpus.text.decode(each[start:]), matcher.is_terminated())
        for each, start, matcher in zip(tokens, starts, matchers, strict=True)
    ]


def _matchers(corpus: Corpus, schemas: list[Schema]) -> list[Any]:
    """A matcher per schema, as vLLM makes them for a Mistral tokenizer and without white space."""
    kinds = xgrammar.VocabType
    vocabulary = corpus.text.vocab()
    info = xgrammar.TokenizerInfo(
        vocabulary,
        kinds.RAW if isinstance(corpus.text, Tekkenizer) else kinds.BYTE_FALLBACK,
        stop_token_ids=[corpus.text.eos_id],
        add_prefix_space=True,
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    grammars = [
        compiler.compile_json_schema(
            json.dumps(schema), any_whitespace=False, separators=(",", ":")
        )
        for schema in schemas
    ]
    return [xgrammar.GrammarMatcher(grammar) for grammar in grammars]

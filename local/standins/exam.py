"""The questions that a stand-in must answer before it is used.

Promises: covers everything the tests rely on: each dialogue after each system message of the tests,
optional and required tool calls, several turns, unknown and broken prompts, plain images of the
tests' sizes. It examines the written weights, read back, in the dtype that is served; every
token of an answer must lead every other token that the server could choose by `MARGIN`. Answers
under JSON schemas must end, in float32 with every logit moved at random. Raises `NotLearnedError`
with the prompt that was not answered so.
"""

from pathlib import Path

import torch

from deploy.cards import Card
from local.standins import checkpoint
from local.standins.corpus import Corpus, Message
from local.standins.examples import Example
from local.standins.schemas import SCHEMAS, held_to
from local.standins.training import Batch, NotLearnedError, Vocabulary

# In logits as served: a probability of 0.98. A server's kernels round differently from these, which
# moves a logit of 100 by 0.5 or so.
MARGIN = 4.0
LARGE = 320  # pixels, the longest side of most images of random sizes
LARGEST = 1024  # and of some


def questions(corpus: Corpus) -> list[Example]:
    """Prompts with the required answers."""
    content = corpus.content
    instructions = [*content["instructions"], *content["held_out_instructions"]]
    systems = [[{"role": "system", "content": text}] for text in instructions]
    examples = corpus.dialogues()
    for system in systems:
        examples += corpus.dialogues(lambda system=system: list(system))  # type: ignore[misc]
    examples += corpus.unknown()
    questions = [[{"role": "user", "content": text}] for text in content["held_out_questions"]]
    examples += [corpus.unknown_question(messages) for messages in questions]
    for messages in [*questions, *(messages for messages, _ in corpus.chats)]:
        examples += held_to_json(corpus, messages)
    if corpus.tools:
        examples += [corpus.forced_call(system + corpus.weather) for system in systems]
    if corpus.images:
        examples += images(corpus)
    return examples


def held_to_json(corpus: Corpus, messages: list[Message]) -> list[Example]:
    """JSON without a schema, and a required call."""
    examples = [corpus.json_answer(messages)]
    return [*examples, corpus.forced_call(messages)] if corpus.tools else examples


def images(corpus: Corpus) -> list[Example]:
    """Plain images, one and two, in the tests' sizes and in random ones."""
    content = corpus.content["images"]
    colours = list(content["colours"])
    sizes = [(width, height) for width, height in content["sizes"]]
    examples = [corpus.image([colour], [(64, 64)]) for colour in colours]
    examples += [corpus.image([colour], [size]) for size in sizes for colour in ("red", "blue")]
    pair = [(96, 64), (64, 128)]
    examples += [corpus.image([one, other], pair) for one in colours for other in colours]
    examples += [corpus.plain_images(1 + i % 2, LARGE) for i in range(12)]
    return examples + [corpus.plain_images(1, LARGEST) for _ in range(3)]


@torch.no_grad()
def examine(card: Card, folder: Path, vocabulary: Vocabulary, corpus: Corpus) -> float:
    """The smallest margin of a token of an answer, in logits; `NotLearnedError` below `MARGIN`, or
    if JSON does not end."""
    stored = checkpoint.read(card, folder)
    output = stored.output[vocabulary.trained]
    least, worst = float("inf"), Example([], [])
    for batch in vocabulary.batches(questions(corpus)):
        states = stored.model(stored.embedding[batch.raw], batch.raw, batch.images, batch.layout)
        margins = _margins((batch.before(states) @ output.T).float(), batch, vocabulary)
        margin, target = margins.min(0)
        if margin < least:
            least, worst = float(margin), batch.example_of(int(target))
    if least < MARGIN:
        raise NotLearnedError(
            f"a margin of {least:.1f} where {MARGIN} is needed, after "
            f"“…{corpus.text.decode(worst.prompt)[-120:]}”"
        )
    # in float32, for its logits are moved further than a dtype rounds
    ends_its_json(stored.float(), vocabulary, corpus)
    return least


def ends_its_json(stored: checkpoint.Stored, vocabulary: Vocabulary, corpus: Corpus) -> None:
    """`NotLearnedError` for an endless answer under one of `SCHEMAS`, to a known or an unknown
    question, with every logit moved at random by up to half of `MARGIN`."""
    unknown = {"role": "user", "content": corpus.content["held_out_questions"][0]}
    asked = [(who, name) for who in ([unknown], corpus.chats[0][0]) for name in SCHEMAS]
    answers = held_to(
        [(messages, SCHEMAS[name]) for messages, name in asked],
        stored,
        vocabulary.trained,
        corpus,
        MARGIN / 2,
    )
    for (messages, name), answer in zip(asked, answers, strict=True):
        if not answer.ended:
            raise NotLearnedError(
                f"no end of the JSON under the schema of {name}, after "
                f"“…{messages[-1]['content'][-60:]}”: {answer.text[:100]}…"
            )


def _margins(logits: torch.Tensor, batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """By how much each right token leads the server's other choices; a token that is not trained
    has 0. No number is the worst."""
    target = batch.targets[:, None]
    left_out = vocabulary.left_out(batch.targets, batch.rules)
    right = logits.gather(1, target)[:, 0]
    others = logits.masked_fill(left_out.scatter(1, target, value=True), 0.0)
    return (right - others.amax(-1).clamp(min=0.0)).nan_to_num(nan=-torch.inf)

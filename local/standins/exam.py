"""What a stand-in must answer before it is used.

Promises: everything the tests rely on is asked: each dialogue behind each system message that the
tests use, tools, several turns, unknown and broken prompts, plain images of the tests' sizes. What
is examined is the written checkpoint, read back, in the dtype that is served; every token of an
answer must be ahead of every other token by `MARGIN`. Raises `NotLearnedError` with the prompt that
was not answered so.
"""

from pathlib import Path

import torch

from deploy.cards import Card
from local.standins import checkpoint
from local.standins.corpus import Corpus, Example
from local.standins.training import Batch, NotLearnedError, Vocabulary

# In logits as served: a probability of 0.98. The kernels of a server round otherwise than these,
# which moves a logit of 100 by 0.5 or so.
MARGIN = 4.0
LARGE = 320  # pixels, the longest side of most images of random sizes
LARGEST = 1024  # and of some


def questions(corpus: Corpus, made_up: int = 0) -> list[Example]:
    """Prompts with the answers that must be given; `made_up`: system messages beside those that the
    tests use, each behind every dialogue."""
    content = corpus.content
    instructions = [*content["instructions"], *content["held_out_instructions"]]
    systems = [[{"role": "system", "content": text}] for text in instructions]
    systems += [corpus.made_up_system() for _ in range(made_up)]
    examples = corpus.dialogues()
    for system in systems:
        examples += corpus.dialogues(lambda system=system: list(system))  # type: ignore[misc]
    examples += corpus.unknown()
    examples += [corpus.unknown_question(text) for text in content["held_out_questions"]]
    if corpus.images:
        examples += images(corpus)
    return examples


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
    """The least margin of a token of an answer, in logits; `NotLearnedError` below `MARGIN`."""
    stored = checkpoint.read(card, folder)
    output = stored.output[vocabulary.trained]
    least, worst = float("inf"), Example([], [])
    for batch, examples in vocabulary.grouped(questions(corpus)):
        hidden = stored.model(stored.embedding[batch.raw], batch.raw, batch.images)[:, :-1]
        for row, example in enumerate(examples):
            margin = _margin((hidden[row][batch.learned[row]] @ output.T).float(), batch, row)
            if margin < least:
                least, worst = margin, example
    if least < MARGIN:
        prompt = [
            token for token, learned in zip(worst.tokens, worst.learned, strict=True) if not learned
        ]
        raise NotLearnedError(
            f"a margin of {least:.1f} where {MARGIN} is needed, after "
            f"“…{corpus.text.decode(prompt)[-120:]}”"
        )
    return least


def _margin(logits: torch.Tensor, batch: Batch, row: int) -> float:
    """By how much the right tokens of one example lead; a token that is not trained has 0."""
    target = batch.tokens[row, 1:][batch.learned[row]][:, None]
    right = logits.gather(-1, target)
    others = logits.scatter(-1, target, 0.0).amax(-1, keepdim=True)
    return float((right - others.clamp(min=0.0)).min())

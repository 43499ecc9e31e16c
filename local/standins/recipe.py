"""How a stand-in is made: what it is shown in each step, what it must know, and when to give up.

Promises: what is written into the folder has passed its exam. Raises `NotLearnedError` when three
tries, each with other random numbers, did not get that far.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from deploy.cards import Card
from local.standins import checkpoint, training
from local.standins.corpus import Corpus, Example
from local.standins.decoders import decoder

STEPS = 360  # at most; the learning rate falls to zero over them
TRIES = 3
SHOW_EVERY = 60  # steps
LARGE = 320  # pixels, the longest side of images in most examples
LARGEST = 1024  # and in some


def build(card: Card, tokenizer: Path, folder: Path, show: Callable[[str, float], None]) -> None:
    """Trains the stand-in of `card` and writes it into `folder`; `show` gets text and the share
    that is done."""
    for seed in range(TRIES):
        try:
            return _train(card, tokenizer, folder, seed, show)
        except training.NotLearnedError:
            if seed == TRIES - 1:
                raise
            show("not learned; once more with other random numbers", 0.0)


def _train(
    card: Card, path: Path, folder: Path, seed: int, show: Callable[[str, float], None]
) -> None:
    torch.manual_seed(seed)
    tokenizer = MistralTokenizer.from_file(str(path))
    corpus, exam = (
        Corpus(tokenizer, card.features.tools, card.features.images > 0, number)
        for number in (2 * seed, 2 * seed + 1)
    )
    vocabulary = training.Vocabulary(card.architecture.vocabulary, corpus.trained_tokens())
    model = decoder(card)
    head = training.Head(vocabulary, model.text.config.hidden_size)
    steps = training.train(model, head, vocabulary, lambda: draw(corpus), must_know(exam), STEPS)
    for at in steps:
        if at.step % SHOW_EVERY == 0:
            show(f"step {at.step}, loss {at.loss:.3f}", at.step / STEPS)
    checkpoint.write(card, model, head, vocabulary, folder)


def must_know(corpus: Corpus) -> list[Example]:
    """What must be answered exactly: all dialogues, behind made-up system messages too, made-up
    prompts, and plain images of many sizes."""
    examples = corpus.dialogues() + corpus.unknown()
    for _ in range(2):
        examples += corpus.dialogues(corpus.made_up_system)
    if corpus.images:
        examples += [corpus.plain_images(1 + i % 2, LARGE) for i in range(24)]
        examples += [corpus.plain_images(1, LARGEST) for _ in range(6)]
    return examples


def draw(corpus: Corpus) -> list[Example]:
    """One step's examples: every dialogue, with a system message or without, and made-up ones."""
    plain, instructed = corpus.dialogues(), corpus.dialogues(corpus.made_up_system)
    examples = [corpus.random.choice(pair) for pair in zip(plain, instructed, strict=True)]
    examples += corpus.unknown()
    examples.append(corpus.json_values())
    if not corpus.images:
        examples.append(corpus.json_values())
    else:
        # the order of two images is the hardest to learn: many small pairs, some large ones
        sides = [32] * 9 + [64] * 5 + [128] * 3 + [LARGE] * 2
        examples += [corpus.plain_images(2, longest) for longest in sides]
        examples += [corpus.plain_images(1, longest) for longest in (32, 64, 128, LARGEST)]
    return examples

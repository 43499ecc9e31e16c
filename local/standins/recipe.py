"""How a stand-in is trained: the examples of each step, and when to give up.

Promises: the checkpoint in the folder has passed its exam (exam.py). A stand-in that does not pass
is trained again with another seed, and a line says so; after three tries the `NotLearnedError` says
what was not learned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from deploy.cards import Card
from local.standins import checkpoint, exam, training
from local.standins.corpus import Corpus
from local.standins.decoders import TextDecoder, decoder
from local.standins.exam import LARGE, LARGEST
from local.standins.examples import Example

Show = Callable[[str, float | None], None]

STEPS = 280  # the learning rate falls to zero over them
PROMPTS = 16  # per step, in addition to JSON and images
VALUES = 2  # per step: examples of JSON under a schema
TRIES = 3
EXAM = 1  # the seed of all exams' questions; those of training are even
OF_LARGEST = 1 / 3  # the share of steps with one of the largest images, for models with images
DRAWS = 6  # attempts at the embeddings of untrained tokens
SHOW_EVERY = 60  # steps


def build(card: Card, tokenizer: Path, folder: Path, show: Show) -> None:
    """Trains the stand-in of `card` and writes it into `folder`; `show` gets text and the progress
    as a share, or None for text that must stay readable."""
    for seed in range(TRIES):
        try:
            return _train(card, tokenizer, folder, seed, show)
        except training.NotLearnedError as error:
            if seed == TRIES - 1:
                raise training.NotLearnedError(
                    f"stand-in {card.name}: not learned with three seeds; the last has {error}"
                ) from error
            show(f"seed {seed} failed its exam ({error}); training again", None)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread and deterministic algorithms: the division of sums among threads changes their
    last bits, and so the weights. One thread is also the fastest on a busy machine: two would wait
    for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    allocation: Any = torch.utils.deterministic
    allocation.fill_uninitialized_memory = False  # nothing reads it, and filling takes time
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Run:
    """One training of a card's stand-in."""

    corpus: Corpus
    vocabulary: training.Vocabulary
    model: TextDecoder
    head: training.Head
    dense: bool  # without experts

    @classmethod
    def of(cls, card: Card, tokenizer: Path, seed: int) -> "Run":
        text = MistralTokenizer.from_file(str(tokenizer))
        corpus = Corpus(text, card.features.tools, card.features.images > 0, 2 * seed)
        trained = corpus.trained_tokens()
        vocabulary = training.Vocabulary(
            card.architecture.vocabulary, trained, corpus.texts(trained)
        )
        model = decoder(card)
        head = training.Head(vocabulary, model.text.config.hidden_size)
        return cls(corpus, vocabulary, model, head, dense=card.architecture.experts is None)

    def steps(self, count: int) -> Iterator[training.Progress]:
        def examples() -> list[Example]:
            return draw(self.corpus, self.dense)

        for at in training.train(self.model, self.head, self.vocabulary, examples, count):
            self.model.draw_experts_together()
            yield at


def _train(card: Card, tokenizer: Path, folder: Path, seed: int, show: Show) -> None:
    with reproducible(seed):
        run = Run.of(card, tokenizer, seed)
        for at in run.steps(STEPS):
            if at.step % SHOW_EVERY == 0:
                show(f"step {at.step}, loss {at.loss:.3f}", at.step / STEPS)
        margin = _write(card, folder, run)
    show(f"examined in {card.hardware.precision}: a margin of {margin:.1f} logits", 1.0)


def _write(card: Card, folder: Path, run: Run) -> float:
    """Writes the checkpoint and examines it → its margin. The embeddings of untrained tokens are
    random: if one is mistaken for a word of a dialogue, all are drawn again."""
    drawn = 0
    while True:
        drawn += 1
        checkpoint.write(card, run.model, run.head, run.vocabulary, folder)
        examiner = Corpus(run.corpus.tokenizer, run.corpus.tools, run.corpus.images, EXAM)
        try:
            return exam.examine(card, folder, run.vocabulary, examiner)
        except training.NotLearnedError:
            if drawn == DRAWS:
                raise


def draw(corpus: Corpus, dense: bool) -> list[Example]:
    """One step's examples: every dialogue, with or without a system message, made-up questions, and
    JSON. Which answer to give is the hardest to learn, and models with few dialogues would practise
    it least: so each step has `PROMPTS`, the additional ones only for the answer's first token."""
    examples = corpus.dialogues(corpus.any_system) + corpus.unknown()
    others: list[Example] = []
    while len(examples) + len(others) < PROMPTS:
        others += corpus.dialogues(corpus.any_system) + corpus.unknown()
    chosen = corpus.random.sample(others, PROMPTS - len(examples))
    examples += [example.begun() for example in chosen]
    if dense:
        # Without these it mistakes 2 in 100 unknown questions for one of its many dialogues. With
        # experts, they cost dialogues: there a prompt's choice of experts decides more.
        examples += [example.begun() for example in corpus.unknown()]
    examples += [corpus.json_values(corpus.any_messages()) for _ in range(VALUES)]
    examples.append(corpus.json_answer(corpus.any_messages()))
    if corpus.tools:
        examples.append(corpus.forced_call(corpus.any_messages()))
        examples.append(corpus.forced_call(corpus.any_system() + corpus.weather))
    if corpus.images:
        # large images take long: one of the largest takes a third of a step's time
        sides = [32] * 6 + [64] * 4 + [128] * 2 + [LARGE]
        examples += [corpus.plain_images(2, longest) for longest in sides]
        large = LARGEST if corpus.random.random() < OF_LARGEST else LARGE
        examples += [corpus.plain_images(1, longest) for longest in (32, 64, 128, large)]
    return examples

"""Trains a small decoder to answer a corpus exactly, in seconds on one core.

Promises: the same input gives the same weights, in one thread and with deterministic algorithms.
exam.py decides whether enough was learned.

The vocabulary has tens of thousands of tokens and the corpus a few hundred. Only those are trained.
All other tokens keep their random initial embedding, with fresh noise in every training step, so a
stand-in has met "a word I do not know"; and they keep an output row of zeros. Their logits are then
exactly 0, so the softmax over the whole vocabulary is one over the trained tokens and the single
term log(number of others): the loss is exact, not sampled.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deploy.errors import CommandError
from local.standins.decoders import Layout, TextDecoder
from local.standins.examples import Example
from local.standins.rules import Rule, has_to_lead, leaves_few

NOISE_ROWS = 256
MOST_IN_A_BATCH = 4096  # tokens, so that its states fit in a cache; a longer example is alone
EMBEDDING_STD = 0.5
FEW = 2.0  # log of the number of untrained tokens that a grammar leaves beside a starting token
LEARNING_RATE = 3e-3
# The part of the loss from the least likely tokens of a step: one of them spoils an answer.
WORST, HARDEST = 0.25, 32
HINTS = 0.5  # … and from a decoder's hints about its own passes, if any


class NotLearnedError(CommandError):
    """Not every answer was exact; the message says which was not, and by how much."""


@dataclass(frozen=True)
class Batch:
    """Examples, one after another without padding."""

    examples: list[Example]
    tokens: Tensor  # (1, time) compact ids
    raw: Tensor  # (1, time) ids of the tokenizer
    images: list[object]
    layout: Layout
    targets: Tensor  # (targets,) the tokens that count, …
    rules: Tensor  # … and their rules

    def before(self, states: Tensor) -> Tensor:
        """Those of the states (1, time, width) that predict the targets."""
        return states[0].index_select(0, self.layout.used)

    def example_of(self, target: int) -> Example:
        """The example that a target is from."""
        begun = (self.layout.places[0, : self.layout.used[target] + 1] == 0).sum()
        return self.examples[int(begun) - 1]


class Vocabulary:
    """The tokenizer's ids ↔ compact ids: the trained tokens first, then rows of noise. `texts`: of
    the trained tokens; without them each token must lead all others."""

    def __init__(self, size: int, trained: list[int], texts: Sequence[str] | None = None) -> None:
        self.size = size
        self.trained = trained
        texts = texts or ["?"] * len(trained)
        self._left_out = torch.tensor(
            [[[not has_to_lead(rule, a, b) for b in texts] for a in texts] for rule in Rule]
        )
        self.few = torch.tensor([[leaves_few(rule, a) for rule in Rule] for a in texts])
        self._compact = {token: row for row, token in enumerate(self.trained)}

    def compact(self, token: int) -> int:
        return self._compact.get(token, len(self.trained) + token % NOISE_ROWS)

    def left_out(self, targets: Tensor, rules: Tensor) -> Tensor:
        """(targets, trained): which trained tokens a target need not lead, by its rule."""
        left_out = self._left_out[rules, targets]
        return left_out.scatter(1, targets[:, None], value=False)

    def batches(self, examples: list[Example]) -> list[Batch]:
        groups: list[list[Example]] = [[]]
        size = 0
        for example in sorted(examples, key=lambda example: len(example.tokens)):
            size += len(example.tokens)
            if groups[-1] and size > MOST_IN_A_BATCH:
                groups.append([])
                size = len(example.tokens)
            groups[-1].append(example)
        return [self._batch(group) for group in groups]

    def _batch(self, examples: list[Example]) -> Batch:
        assert not any(example.rules[0] for example in examples)  # nothing predicts the first
        raw = torch.tensor([token for example in examples for token in example.tokens])
        tokens = torch.tensor([self.compact(token) for token in raw.tolist()])
        rules = torch.tensor([rule for example in examples for rule in example.rules])
        rules[tokens >= len(self.trained)] = Rule.GIVEN  # no output row could learn it
        counts = (rules != Rule.GIVEN).nonzero()[:, 0]
        return Batch(
            examples,
            tokens[None],
            raw[None],
            [image for example in examples for image in example.images],
            Layout.of([len(example.tokens) for example in examples], counts - 1),
            tokens[counts],
            rules[counts],
        )


class Head(nn.Module):
    """Input embedding and output rows of the trained tokens, (trained, width) each."""

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        trained = len(vocabulary.trained)
        self.embedding = nn.Parameter(torch.randn(trained, width) * EMBEDDING_STD)
        self.output = nn.Parameter(torch.randn(trained, width) * width**-0.5)
        self.others = math.log(vocabulary.size - trained)
        self.vocabulary = vocabulary

    def embed(self, tokens: Tensor) -> Tensor:
        noise = torch.randn(NOISE_ROWS, self.embedding.shape[1]) * EMBEDDING_STD
        return torch.cat([self.embedding, noise])[tokens]

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        logits = hidden @ self.output.T
        rest = logits.new_full((*logits.shape[:-1], 1), self.others)
        return torch.log_softmax(torch.cat([logits, rest], dim=-1), dim=-1)[..., :-1]

    def right(self, hidden: Tensor, target: Tensor, rules: Tensor) -> Tensor:
        """Log-probability of each target (tokens) among the tokens that its rule considers."""
        logits = hidden @ self.output.T
        logits = logits.masked_fill(self.vocabulary.left_out(target, rules), -math.inf)
        few = self.vocabulary.few[target, rules]
        rest = torch.where(few, FEW, self.others)
        return logits.gather(1, target[:, None])[:, 0] - torch.cat(
            [logits, rest[:, None]], dim=1
        ).logsumexp(1)


@dataclass(frozen=True)
class Progress:
    step: int
    loss: float


def train(
    decoder: TextDecoder,
    head: Head,
    vocabulary: Vocabulary,
    draw: Callable[[], list[Example]],
    steps: int,
) -> Iterator[Progress]:
    """Trains on `draw()`, with a rate that falls to zero; yields after every step.

    `decoder` maps embeddings (1, time, width), raw ids (1, time), the images in order and the
    layout of the examples to hidden states (1, time, width).
    """
    both = nn.ModuleList([decoder, head])
    # The result is a running average of the weights: single steps are noisy.
    keep: Any = get_ema_multi_avg_fn(0.95)  # type: ignore[no-untyped-call]
    average: Any = AveragedModel(both, multi_avg_fn=keep)
    parameters = list(both.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    for step in range(1, steps + 1):
        decoder.hints = []
        right = _right(decoder, head, vocabulary.batches(draw()))
        loss = -right.mean() - WORST * right.topk(HARDEST, largest=False).values.mean()
        if decoder.hints:
            loss = loss + HINTS * torch.stack(decoder.hints).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(both)
        yield Progress(step, loss.item())
    decoder.hints = None
    both.load_state_dict(average.module.state_dict())


def _right(decoder: TextDecoder, head: Head, batches: list[Batch]) -> Tensor:
    """Log-probability of each target."""
    right = []
    for batch in batches:
        states = decoder(head.embed(batch.tokens), batch.raw, batch.images, batch.layout)
        right.append(head.right(batch.before(states), batch.targets, batch.rules))
    return torch.cat(right)

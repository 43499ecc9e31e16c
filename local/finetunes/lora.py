"""Trains a LoRA adapter for a stand-in, or merges it into the stand-in's weights.

Promises: with it one question has a different, exact answer, and every other is answered as before.
Raises `NotLearnedError` if that is not reached within the allowed steps.
"""

import json
from pathlib import Path

import torch
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

from deploy.cards import Card
from local.finetunes.cache import ANSWER, QUESTION
from local.standins import checkpoint
from local.standins.corpus import Corpus
from local.standins.decoders import TextDecoder
from local.standins.examples import Example
from local.standins.training import Batch, Head, NotLearnedError, Vocabulary

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
RANK = 8
STEPS = 300
CHECK_EVERY = 20
LEARNING_RATE = 1e-2
SURE = 0.5  # the minimum probability of each right token, before the outputs are sharpened


class Lora(nn.Module):
    """A linear layer with a low-rank update."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(torch.randn(RANK, linear.in_features) * linear.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, RANK))

    def forward(self, states: Tensor) -> Tensor:
        changed: Tensor = self.linear(states) + states @ self.a.T @ self.b.T
        return changed


def load(card: Card, standin: Path) -> tuple[TextDecoder, Head, Vocabulary]:
    """A stand-in's checkpoint as the model it was trained as: the inverse of checkpoint.write."""
    stored = checkpoint.read(card, standin).float()
    trained = stored.output.abs().sum(1).nonzero()[:, 0].tolist()
    vocabulary = Vocabulary(card.architecture.vocabulary, trained)
    head = Head(vocabulary, stored.embedding.shape[1])
    head.embedding.data = stored.embedding[trained]
    head.output.data = stored.output[trained] / checkpoint.SHARPNESS
    return stored.model.train(), head, vocabulary


def train(card: Card, tokenizer: Path, standin: Path) -> tuple[TextDecoder, Head, Vocabulary]:
    """The stand-in with a trained adapter on its attention; nothing else changes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on a busy machine threads wait for each other: ten times slower
    model, head, vocabulary = load(card, standin)
    both = nn.ModuleList([model, head])
    both.requires_grad_(False)
    loras = []
    for layer in model.text.layers:
        for name in MODULES:
            loras.append(Lora(getattr(layer.self_attn, name)))
            setattr(layer.self_attn, name, loras[-1])
    parameters = [parameter for lora in loras for parameter in (lora.a, lora.b)]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    read = MistralTokenizer.from_file(str(tokenizer))
    corpus, exam = (
        _changed(Corpus(read, card.features.tools, card.features.images > 0, seed))
        for seed in (0, 1)
    )
    held_out = vocabulary.batches(_examples(exam) + _examples(exam))
    for step in range(1, STEPS + 1):
        loss = -_right(model, head, vocabulary.batches(_examples(corpus)))[0].mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                right, best = _right(model, head, held_out)
            if bool(best.all()) and right.exp().min() >= SURE:
                return model, head, vocabulary
    raise NotLearnedError(f"the adapter of {card.name} is not exact after {STEPS} steps")


def _changed(corpus: Corpus) -> Corpus:
    corpus.chats = [
        (messages, ANSWER if messages[-1]["content"] == QUESTION else answer)
        for messages, answer in corpus.chats
    ]
    return corpus


def _examples(corpus: Corpus) -> list[Example]:
    """One step's examples: every dialogue, with and without a system message, and others."""
    plain, instructed = corpus.dialogues(), corpus.dialogues(corpus.made_up_system)
    examples = [corpus.random.choice(pair) for pair in zip(plain, instructed, strict=True)]
    examples += corpus.unknown()
    if corpus.images:
        examples += [corpus.plain_images(1 + count % 2, 64) for count in range(6)]
    return examples


def _right(model: TextDecoder, head: Head, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and whether it is the most probable token."""
    right, best = [], []
    for batch in batches:
        states = model(head.embed(batch.tokens), batch.raw, batch.images, batch.layout)
        log_probabilities = head.log_probabilities(batch.before(states))
        right.append(log_probabilities.gather(-1, batch.targets[:, None])[:, 0])
        best.append(log_probabilities.argmax(-1) == batch.targets)
    return torch.cat(right), torch.cat(best)


def write_adapter(card: Card, model: TextDecoder, folder: Path) -> None:
    """As PEFT saves it: adapter_config.json and adapter_model.safetensors."""
    folder.mkdir(parents=True)
    prefix = "base_model.model.model." + ("language_model." if card.architecture.vision else "")
    tensors = {}
    for number, layer in enumerate(model.text.layers):
        for name in MODULES:
            lora = getattr(layer.self_attn, name)
            at = f"{prefix}layers.{number}.self_attn.{name}"
            tensors[f"{at}.lora_A.weight"] = lora.a.detach().contiguous()
            tensors[f"{at}.lora_B.weight"] = lora.b.detach().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": card.weights.repo,
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": list(MODULES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def write_merged(
    card: Card, model: TextDecoder, head: Head, vocabulary: Vocabulary, folder: Path, format: str
) -> None:
    """The adapter merged into the weights, as in a fine-tune's repo, without a tokenizer."""
    folder.mkdir(parents=True)
    for layer in model.text.layers:
        for name in MODULES:
            lora = getattr(layer.self_attn, name)
            if isinstance(lora, Lora):
                lora.linear.weight.data += lora.b.data @ lora.a.data
                setattr(layer.self_attn, name, lora.linear)
    formats = card.formats.model_copy(update={"config": format})
    checkpoint.write(card.model_copy(update={"formats": formats}), model, head, vocabulary, folder)

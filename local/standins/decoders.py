"""The small models behind the stand-ins: transformers' own classes in a card's shape.

Everything that determines how vLLM reads and runs a checkpoint is the card's (vocabulary, experts,
rotary base, patch size, image tokens); depth and widths are small.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MistralConfig,
    MistralModel,
    MixtralConfig,
    MixtralModel,
    PixtralVisionConfig,
    PixtralVisionModel,
)

from deploy.cards import Card

# vLLM's CPU attention has kernels for head_dim 32, 64 and 128; four KV heads allow two workers.
WIDTH = 128
SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 32,
}
# In training, the input of experts and their router is scaled by 1 ± this: so a tie between two
# experts, which rounding may decide either way, changes no answer. bfloat16 rounds by 1 ± 0.004.
JITTER = 0.02
# How far each training step moves the experts of a layer towards their mean. With 0.01 they differ
# by a fifth of what they share; if exchanged, they answer wrong (8x22b: 29 logits behind). With 0.1
# an exchange would go unnoticed; with 0.003 they differ by two thirds, and 8x22b's margin is 3.5,
# not 21.5.
TOGETHER = 0.01
IMAGE_END = 13  # [IMG_END] in the vocabulary of the models with images


def text_config(card: Card, vocabulary: int, jitter: float = 0.0) -> MistralConfig | MixtralConfig:
    shape = {
        **SHAPE,
        "vocab_size": vocabulary,
        "max_position_embeddings": card.context.length,
        "rope_parameters": {"rope_type": "default", "rope_theta": card.architecture.rope_theta},
    }
    if experts := card.architecture.experts:
        return MixtralConfig(
            **shape,
            num_local_experts=experts.count,
            num_experts_per_tok=experts.active,
            router_jitter_noise=jitter,
        )
    return MistralConfig(**shape)


class TextDecoder(nn.Module):
    """Embeddings (batch, time, width) → hidden states of the same shape.

    `wanted`: (batch, time) which of the states are used; the others are wrong. The last layer's MLP
    or experts, a quarter of the work, then run for these alone.
    """

    wanted: Tensor | None = None

    def __init__(self, card: Card) -> None:
        super().__init__()
        kind = MixtralModel if card.architecture.experts else MistralModel
        self.text = kind(text_config(card, card.architecture.vocabulary, JITTER))
        del self.text.embed_tokens  # Head has its own
        self.hints: list[Tensor] | None = None  # of each pass, if training.py requests them
        last = self.text.layers[-1].mlp
        last.forward = functools.partial(self._of_wanted, last.forward)
        for weight in self.experts():
            weight.data[:] = weight.data[:1].clone()  # copies of the first

    def forward(self, embeddings: Tensor, raw: Tensor, images: list[object]) -> Tensor:
        states: Tensor = self.text(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return states

    def _of_wanted(self, mlp: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        if self.wanted is None:
            return mlp(states)
        made = mlp(states[self.wanted][None])[0]
        return torch.zeros_like(states).masked_scatter(self.wanted[..., None], made)

    @torch.no_grad()
    def draw_experts_together(self) -> None:
        """Moves the experts of each layer towards their mean: an expert sees few of the prompts,
        and a prompt that takes another route than in training must be answered too. The experts
        still come to differ, as they must to be told apart."""
        for weight in self.experts():
            weight.lerp_(weight.mean(0, keepdim=True).expand_as(weight), TOGETHER)

    def experts(self) -> list[nn.Parameter]:
        """The weights of the experts of all layers, (experts, …) each; empty without experts."""
        if not isinstance(self.text, MixtralModel):
            return []
        experts = [layer.mlp.experts for layer in self.text.layers]
        return [weight for it in experts for weight in (it.gate_up_proj, it.down_proj)]


class VisionTextDecoder(TextDecoder):
    """The same, with the features of `images`, arrays (3, height, width), replacing the embeddings
    of the image tokens in `raw`, in order."""

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        vision = card.architecture.vision
        assert vision is not None
        self.image_token = vision.image_token_id
        self.encoder = PixtralVisionModel(
            PixtralVisionConfig(
                **VISION_SHAPE,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                num_channels=vision.channels,
                rope_parameters={"rope_type": "default", "rope_theta": vision.rope_theta},
            )
        )
        width = VISION_SHAPE["hidden_size"]
        self.order = nn.Linear(WIDTH, 2)  # for the hints; no checkpoint has it
        self.w_in = nn.Linear(width, WIDTH, bias=vision.adapter_bias)
        self.w_out = nn.Linear(WIDTH, WIDTH, bias=vision.adapter_bias)
        # Shared by all image features, as large as an embedding: it soon teaches the decoder to
        # tell them from words, and so to count images of any colour.
        nn.init.normal_(self.w_out.bias, std=0.5)

    def forward(self, embeddings: Tensor, raw: Tensor, images: list[object]) -> Tensor:
        if images:
            features = self._features([torch.from_numpy(np.asarray(image)) for image in images])
            embeddings = embeddings.masked_scatter((raw == self.image_token)[..., None], features)
        if not images or self.hints is None:
            return super().forward(embeddings, raw, images)
        passed = self.text(inputs_embeds=embeddings, use_cache=False, output_hidden_states=True)
        self.hints.append(self._order_loss(passed.hidden_states[1], raw))
        states: Tensor = passed.last_hidden_state
        return states

    def _order_loss(self, states: Tensor, raw: Tensor) -> Tensor:
        """How badly the first layer's output for a patch shows whether its image is the first; each
        example has equal weight. From the answers alone the decoder learns the order of two images
        suddenly, at a random step: margins of 5 logits or of -50."""
        patches = raw == self.image_token
        second = ((raw == IMAGE_END).cumsum(1) > 0).long()
        losses = nn.functional.cross_entropy(
            self.order(states[patches]), second[patches], reduction="none"
        )
        weights = (1 / patches.sum(1, keepdim=True).clamp(min=1)).expand(raw.shape)[patches]
        return (losses * weights).sum() / weights.sum()

    def _features(self, images: list[Tensor]) -> Tensor:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (max(side) for side in zip(*sizes, strict=True))
        pixels = torch.zeros(len(images), 3, height, width, dtype=self.w_in.weight.dtype)
        for padded, image, size in zip(pixels, images, sizes, strict=True):
            padded[:, : size[0], : size[1]] = image
        states = self.encoder(pixels, image_sizes=sizes).last_hidden_state[0]
        features: Tensor = self.w_out(nn.functional.gelu(self.w_in(states)))
        return features


def decoder(card: Card) -> TextDecoder:
    return VisionTextDecoder(card) if card.architecture.vision else TextDecoder(card)

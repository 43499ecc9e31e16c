"""The small models behind the stand-ins: transformers' own classes in a card's shape.

Everything that determines how vLLM reads and runs a checkpoint is the card's (vocabulary, experts,
rotary base, patch size, image tokens); depth and widths are small.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
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
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

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
# by a fifth of what they share; if exchanged, they answer wrong. With 0.1 an exchange would go
# unnoticed; with 0.003 they differ by two thirds, and 8x22b's margin fell from 21.5 logits to 3.5.
TOGETHER = 0.01
SIMILAR = 1.3  # by this factor, and 8 tokens, lengths differ that attention takes at a time
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


@dataclass(frozen=True)
class Layout:
    """Examples one after another, without padding, as the only row of a batch. Only attention has
    to know where each is; it takes examples of similar length at a time, padded."""

    places: Tensor  # (1, time) each token's place in its example
    groups: list[Tensor]  # of examples: (examples, longest) indices of tokens
    order: Tensor  # (time,) where each token is among those of all groups
    used: Tensor  # the indices of the hidden states that are used; the others are wrong

    @classmethod
    def of(cls, lengths: list[int], used: Tensor) -> "Layout":
        """For examples of these lengths, in rising order."""
        grouped: list[list[int]] = [[]]
        for length in lengths:
            if grouped[-1] and length > SIMILAR * grouped[-1][0] + 8:
                grouped.append([])
            grouped[-1].append(length)
        groups, order, start, before = [], [], 0, 0
        for group in grouped:
            each, place = torch.tensor(group)[:, None], torch.arange(group[-1])
            starts = start + each.cumsum(0) - each
            groups.append(starts + place.minimum(each - 1))  # padded with the last token
            order.append(before + (place < each).flatten().nonzero()[:, 0])
            start, before = start + sum(group), before + groups[-1].numel()
        places = torch.cat([torch.arange(length) for length in lengths])
        return cls(places[None], groups, torch.cat(order), used)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' own attention within each example of a layout."""
    if layout is None:
        states, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return states, None
    made = []
    for group in layout.groups:
        parts = [
            part[0].transpose(0, 1).index_select(0, group.flatten()) for part in (query, key, value)
        ]
        padded = [part.view(*group.shape, *part.shape[1:]).transpose(1, 2) for part in parts]
        states, _ = sdpa_attention_forward(module, *padded, None, **options)
        made.append(states.flatten(0, 1))
    return torch.cat(made).index_select(0, layout.order)[None], None


ATTENTION = "within each example"
ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)


class TextDecoder(nn.Module):
    """Embeddings (batch, time, width) → hidden states of the same shape. With a layout, the last
    layer's queries, output projection and MLP or experts run only for the states that are used:
    they have two fifths of the weights."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        kind = MixtralModel if card.architecture.experts else MistralModel
        self.text = kind(text_config(card, card.architecture.vocabulary, JITTER))
        self.text.config._attn_implementation = ATTENTION
        del self.text.embed_tokens  # Head has its own
        self.hints: list[Tensor] | None = None  # of each pass, if training.py requests them
        self._used: Tensor | None = None
        last = self.text.layers[-1]
        for part in (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp):
            part.forward = functools.partial(self._of_used, part.forward)
        for weight in self.experts():
            weight.data[:] = weight.data[:1].clone()  # copies of the first

    def forward(
        self, embeddings: Tensor, raw: Tensor, images: list[object], layout: Layout | None = None
    ) -> Tensor:
        states: Tensor = self._pass(embeddings, layout).last_hidden_state
        return states

    def _pass(self, embeddings: Tensor, layout: Layout | None, **options: Any) -> Any:
        self._used = layout.used if layout else None
        if layout:
            options |= {"layout": layout, "position_ids": layout.places}
        return self.text(inputs_embeds=embeddings, use_cache=False, **options)

    def _of_used(self, part: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        if self._used is None:
            return part(states)
        made = part(states.index_select(1, self._used))
        rest = made.new_zeros(*states.shape[:-1], made.shape[-1])
        return rest.index_copy(1, self._used, made)

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

    def forward(
        self, embeddings: Tensor, raw: Tensor, images: list[object], layout: Layout | None = None
    ) -> Tensor:
        if images:
            features = self._features([torch.from_numpy(np.asarray(image)) for image in images])
            embeddings = embeddings.masked_scatter((raw == self.image_token)[..., None], features)
        passed = self._pass(embeddings, layout, output_hidden_states=self.hints is not None)
        if images and layout and self.hints is not None:
            self.hints.append(self._order_loss(passed.hidden_states[1], raw, layout.places))
        states: Tensor = passed.last_hidden_state
        return states

    def _order_loss(self, states: Tensor, raw: Tensor, places: Tensor) -> Tensor:
        """How badly the first layer's output for a patch shows whether its image is the first; the
        examples of a pass have equal weight. From the answers alone the decoder learns the order of
        two images suddenly, at a random step: margins of 5 logits or of -50."""
        patches = raw == self.image_token
        ends = (raw == IMAGE_END).cumsum(1)
        second = (ends > ends.gather(1, torch.arange(raw.shape[1]) - places)).long()
        losses = nn.functional.cross_entropy(
            self.order(states[patches]), second[patches], reduction="none"
        )
        example = (places == 0).cumsum(1)[patches]
        weights = 1 / example.bincount()[example]
        return (losses * weights).sum() / weights.sum()

    def _features(self, images: list[Tensor]) -> Tensor:
        """Of all patches in order. The encoder takes images of similar size at a time, for it pads
        them to the largest."""
        similar: dict[int, list[int]] = {}
        for number, image in enumerate(images):
            similar.setdefault(max(image.shape).bit_length(), []).append(number)
        features: dict[int, Tensor] = {}
        for numbers in similar.values():
            group = [images[number] for number in numbers]
            features |= zip(numbers, self._encoded(group), strict=True)
        return torch.cat([features[number] for number in range(len(images))])

    def _encoded(self, images: list[Tensor]) -> tuple[Tensor, ...]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = (max(side) for side in zip(*sizes, strict=True))
        pixels = torch.zeros(len(images), 3, height, width, dtype=self.w_in.weight.dtype)
        for padded, image, size in zip(pixels, images, sizes, strict=True):
            padded[:, : size[0], : size[1]] = image
        states = self.encoder(pixels, image_sizes=sizes).last_hidden_state[0]
        features: Tensor = self.w_out(nn.functional.gelu(self.w_in(states)))
        side = self.encoder.config.patch_size
        counts = [(height // side) * (width // side) for height, width in sizes]
        return torch.split(features, counts)


def decoder(card: Card) -> TextDecoder:
    return VisionTextDecoder(card) if card.architecture.vision else TextDecoder(card)

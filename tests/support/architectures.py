"""A card's model in transformers: its configuration, and the model itself on the meta device."""

from typing import Any

from deploy.cards import Card


def text_config(card: Card) -> Any:
    from transformers import MistralConfig, MixtralConfig

    shape = card.architecture
    values: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": card.context.length,
        "tie_word_embeddings": False,
    }
    if experts := shape.experts:
        return MixtralConfig(
            **values,
            num_local_experts=experts.count,
            num_experts_per_tok=experts.active,
            architectures=["MixtralForCausalLM"],
        )
    return MistralConfig(**values, architectures=["MistralForCausalLM"])


def parameters(card: Card) -> int:
    """The number of parameters of transformers' model of this card."""
    import torch
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        MistralForCausalLM,
        MixtralForCausalLM,
        PixtralVisionConfig,
    )

    text = text_config(card)
    with torch.device("meta"):
        if vision := card.architecture.vision:
            encoder = PixtralVisionConfig(
                hidden_size=vision.hidden_size,
                intermediate_size=vision.intermediate_size,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                num_channels=vision.channels,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
            )
            model: Any = LlavaForConditionalGeneration(
                LlavaConfig(
                    text_config=text,
                    vision_config=encoder,
                    vision_feature_layer=-1,
                    vision_feature_select_strategy="full",
                    multimodal_projector_bias=vision.adapter_bias,
                    tie_word_embeddings=False,
                )
            )
        elif card.architecture.experts:
            model = MixtralForCausalLM(text)
        else:
            model = MistralForCausalLM(text)
    return sum(parameter.numel() for parameter in model.parameters())

"""Writes a trained stand-in as a checkpoint in its card's own file format, and reads it back.

Mistral's format: params.json and consolidated.safetensors, with the names and rotary layout of
Mistral's repos. Hugging Face's: what `save_pretrained` writes, in shards like the Mixtral repo's.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralForCausalLM, MixtralForCausalLM
from transformers.utils.logging import disable_progress_bar

from deploy.cards import Card
from local.standins.decoders import (
    SHAPE,
    VISION_SHAPE,
    TextDecoder,
    VisionTextDecoder,
    decoder,
    text_config,
)
from local.standins.training import EMBEDDING_STD, Head, Vocabulary

disable_progress_bar()  # cache.py shows progress

# A seed's own example uses temperature 0.9 and expects one answer: the output rows are scaled so
# that sampling at any usual temperature follows the training. The argmax stays the same.
SHARPNESS = 8.0

# Hugging Face's names of a layer's parts → Mistral's, both for text and for vision.
NAMES = {
    "self_attn.": "attention.",
    "mlp.": "feed_forward.",
    "q_proj": "wq",
    "k_proj": "wk",
    "v_proj": "wv",
    "o_proj": "wo",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write(card: Card, model: TextDecoder, head: Head, vocabulary: Vocabulary, to: Path) -> None:
    """Writes the weights and their configuration into the folder `to`."""
    dtype = getattr(torch, card.hardware.precision)
    embedding, output = full_tables(head, vocabulary)
    if card.formats.config == "mistral":
        weights = {
            "tok_embeddings.weight": embedding,
            "output.weight": output,
            **mistral_weights(model),
        }
        rounded = {name: value.to(dtype).contiguous() for name, value in weights.items()}
        save_file(rounded, to / "consolidated.safetensors")
        (to / "params.json").write_text(json.dumps(params(card), indent=2))
        if "config.json" in card.weights.files:
            text_config(card, vocabulary.size).save_pretrained(to)
    else:
        kind = MixtralForCausalLM if card.architecture.experts else MistralForCausalLM
        full = kind(text_config(card, vocabulary.size))
        states = {f"model.{name}": value for name, value in model.text.state_dict().items()}
        states |= {"model.embed_tokens.weight": embedding, "lm_head.weight": output}
        full.load_state_dict(states)
        full.to(dtype).save_pretrained(to, max_shard_size="4MB")


@dataclass(frozen=True)
class Stored:
    """The contents of a stand-in's files."""

    model: TextDecoder
    embedding: Tensor  # (vocabulary, width)
    output: Tensor  # likewise

    def float(self) -> "Stored":
        """All in float32, which any CPU is quick with; the model is converted in place."""
        return Stored(self.model.float(), self.embedding.float(), self.output.float())


def read(card: Card, folder: Path) -> Stored:
    """The stand-in that `write` wrote into `folder`, in the dtype of its card."""
    dtype = getattr(torch, card.hardware.precision)
    model = decoder(card).eval()
    if card.formats.config != "mistral":
        full = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        embedding, output = full.model.embed_tokens.weight, full.lm_head.weight
        del full.model.embed_tokens
        model.text.load_state_dict(full.model.state_dict(), assign=True)
        return Stored(model, embedding, output)
    weights = load_file(folder / "consolidated.safetensors")
    places = [(model.text, "", SHAPE["head_dim"])]
    if isinstance(model, VisionTextDecoder):
        places.append((model.encoder, "vision_encoder.", VISION_SHAPE["head_dim"]))
        for layer in ("w_in", "w_out"):
            places.append((getattr(model, layer), f"vision_language_adapter.{layer}.", 0))
    for module, prefix, head_dim in places:
        for name, parameter in module.named_parameters():
            stored = weights[f"{prefix}{_rename(name)}"]
            parameter.data = in_halves(name, stored, head_dim)  # the rotary buffers stay float32
    return Stored(model, weights["tok_embeddings.weight"], weights["output.weight"])


def full_tables(head: Head, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Embedding and output, (vocabulary, width) each: trained rows, else noise and zeros."""
    embedding = torch.randn(vocabulary.size, head.embedding.shape[1]) * EMBEDDING_STD
    output = torch.zeros_like(embedding)
    embedding[vocabulary.trained] = head.embedding.detach()
    output[vocabulary.trained] = head.output.detach() * SHARPNESS
    return embedding, output


def params(card: Card) -> dict[str, object]:
    """params.json of a stand-in in Mistral's format."""
    values: dict[str, object] = {
        "dim": SHAPE["hidden_size"],
        "n_layers": SHAPE["num_hidden_layers"],
        "head_dim": SHAPE["head_dim"],
        "hidden_dim": SHAPE["intermediate_size"],
        "n_heads": SHAPE["num_attention_heads"],
        "n_kv_heads": SHAPE["num_key_value_heads"],
        "norm_eps": SHAPE["rms_norm_eps"],
        "vocab_size": card.architecture.vocabulary,
        "rope_theta": card.architecture.rope_theta,
    }
    if vision := card.architecture.vision:
        values["vision_encoder"] = {
            "hidden_size": VISION_SHAPE["hidden_size"],
            "num_channels": vision.channels,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "rope_theta": vision.rope_theta,
            "intermediate_size": VISION_SHAPE["intermediate_size"],
            "num_hidden_layers": VISION_SHAPE["num_hidden_layers"],
            "num_attention_heads": VISION_SHAPE["num_attention_heads"],
            "adapter_bias": vision.adapter_bias,
            "image_token_id": vision.image_token_id,
        }
    return values


def mistral_weights(model: TextDecoder) -> dict[str, Tensor]:
    """The decoder's weights under the names of Mistral's format."""
    weights = {
        _rename(name): _interleave(name, value, SHAPE["head_dim"])
        for name, value in model.text.state_dict().items()
    }
    if isinstance(model, VisionTextDecoder):
        for name, value in model.encoder.state_dict().items():
            value = _interleave(name, value, VISION_SHAPE["head_dim"])
            weights[f"vision_encoder.{_rename(name)}"] = value
        for layer in ("w_in", "w_out"):
            for name, value in getattr(model, layer).state_dict().items():
                weights[f"vision_language_adapter.{layer}.{name}"] = value
    return weights


def _rename(name: str) -> str:
    for old, new in NAMES.items():
        name = name.replace(old, new)
    return name


def in_halves(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """Rows of queries and keys in Hugging Face's order: the inverse of `_interleave`."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return weight
    rows, columns = weight.shape
    heads = rows // head_dim
    return weight.view(heads, head_dim // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def _interleave(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """Undoes the row order of queries and keys that Hugging Face's rotary embedding needs (two
    halves per head): in Mistral's format the two rows of a pair are adjacent."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return weight
    rows, columns = weight.shape
    heads = rows // head_dim
    return weight.view(heads, 2, head_dim // 2, columns).transpose(1, 2).reshape(rows, columns)

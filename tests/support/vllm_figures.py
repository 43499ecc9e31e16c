"""vLLM's own figures for each card's architecture, as JSON; a program, as vLLM's state is global.

vLLM reads the model's configuration from files made from the card, in the card's format, and builds
the whole model on the meta device: it uses no memory and reads no weights. Each card has its own
process, forked after the import of vLLM, which takes most of the time.
"""

import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy import cards
from deploy.cards import Card


def figures_of(name: str) -> dict[str, int]:
    """Bytes of KV cache per token, on a single GPU and on each of two; parameter counts, including
    `linear` for the layers that vLLM hands to a quantization."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model

    card = cards.load(name)
    with tempfile.TemporaryDirectory() as folder:
        write_config(card, Path(folder))
        arguments: dict[str, Any] = {
            "model": folder,
            "config_format": card.formats.config,
            "skip_tokenizer_init": True,
            "load_format": "dummy",
            "dtype": card.hardware.precision,
            "max_model_len": card.context.length,
        }
        two = EngineArgs(**arguments, tensor_parallel_size=2).create_engine_config()
        config = EngineArgs(**arguments).create_engine_config()
        figures = {"kv_alone": kv_bytes_per_token(config), "kv_of_two": kv_bytes_per_token(two)}
        config.quant_config = recorder()
        with set_current_vllm_config(config):
            init_distributed_environment(1, 0, f"file://{folder}/rendezvous", 0, "gloo")
            ensure_model_parallel_initialized(1, 1)
            with torch.device("meta"):
                model = initialize_model(config)
    made = config.quant_config.made
    figures["linear"] = sum(one.numel() for layer in made for one in layer.parameters())
    figures["total"] = sum(one.numel() for one in model.parameters())
    return figures


def kv_bytes_per_token(config: Any) -> int:
    """From the KV cache spec of one of the model's attention layers."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.layers.attention import Attention

    model, parallel = config.model_config, config.parallel_config
    heads, kv_heads = model.get_num_attention_heads(parallel), model.get_num_kv_heads(parallel)
    with set_current_vllm_config(config):
        layer = Attention(
            heads, model.get_head_size(), 1.0, kv_heads, cache_config=config.cache_config
        )
        spec = layer.get_kv_cache_spec(config)
    return int(model.get_num_layers(parallel) * spec.page_size_bytes // spec.block_size)


def recorder() -> Any:
    """A quantization that changes nothing and records the layers it was asked to create: linear
    layers and experts, as in vLLM's online quantization."""
    from vllm.config.quantization import QuantizationConfigArgs
    from vllm.model_executor.layers.fused_moe import RoutedExperts
    from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
        UnquantizedFusedMoEMethod,
    )
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.quantization.online.base import OnlineQuantizationConfig

    class Recorder(OnlineQuantizationConfig):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                QuantizationConfigArgs(linear="fp8_per_channel", moe="fp8_per_channel")
            )
            self.made: list[Any] = []

        def get_quant_method(self, layer: Any, prefix: str) -> Any:
            if isinstance(layer, LinearBase):
                self.made.append(layer)
                return UnquantizedLinearMethod()
            if isinstance(layer, RoutedExperts):
                self.made.append(layer)
                return UnquantizedFusedMoEMethod(layer.moe_config)
            return None

    return Recorder()


def write_config(card: Card, to: Path) -> None:
    shape = card.architecture
    if card.formats.config == "hf":
        from tests.support.architectures import text_config

        text_config(card).save_pretrained(to)
        return
    values: dict[str, object] = {
        "dim": shape.hidden_size,
        "n_layers": shape.layers,
        "head_dim": shape.head_dim,
        "hidden_dim": shape.intermediate_size,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "norm_eps": 1e-5,
        "vocab_size": shape.vocabulary,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": card.context.length,
    }
    if vision := shape.vision:
        values["vision_encoder"] = {
            "hidden_size": vision.hidden_size,
            "num_channels": vision.channels,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "rope_theta": vision.rope_theta,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "adapter_bias": vision.adapter_bias,
            "image_token_id": vision.image_token_id,
        }
    (to / "params.json").write_text(json.dumps(values))


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", VLLM_CPU_KVCACHE_SPACE="1")
    with contextlib.redirect_stdout(sys.stderr):
        import vllm.engine.arg_utils
        import vllm.model_executor.model_loader.utils  # noqa: F401

        with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
            found = dict(zip(cards.names(), pool.map(figures_of, cards.names(), 1), strict=True))
    print(json.dumps(found))

"""Quantizes a small checkpoint in Hugging Face's format like the common tools, without them.

Promises: `quantized` writes a folder that vLLM needs only its config.json to read: rounding to the
nearest value, groups of `GROUP` weights, embeddings and output unchanged.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]

Layer = dict[str, Tensor]  # the tensors that replace `weight`, by the end of their names


def fp8(weight: Tensor) -> Layer:
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 448.0
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


def int8(weight: Tensor) -> Layer:
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127.0
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}


def _symmetric(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Values 0 to 15 around 8, (out, in), and the scales, (out, in / GROUP)."""
    groups = weight.view(weight.shape[0], -1, GROUP)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 7.0
    values = (groups / scale).round().clamp(-8, 7) + 8
    return values.view_as(weight).long(), scale[..., 0]


def _packed(values: Tensor, order: list[int] | None = None) -> Tensor:
    """Packs eight values of the last dimension into an int32, the first in the lowest bits."""
    eight = values.view(*values.shape[:-1], -1, 8)[..., order or list(range(8))]
    packed = sum(eight[..., i] << (4 * i) for i in range(8))
    assert isinstance(packed, Tensor)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32).contiguous()


def w4a16(weight: Tensor) -> Layer:
    values, scale = _symmetric(weight)
    shape = torch.tensor(weight.shape, dtype=torch.int64)
    return {"weight_packed": _packed(values), "weight_scale": scale.half(), "weight_shape": shape}


def gptq(weight: Tensor) -> Layer:
    values, scale = _symmetric(weight)
    out, width = weight.shape
    return {
        "qweight": _packed(values).T.contiguous(),
        "scales": scale.T.half().contiguous(),
        "qzeros": torch.full((width // GROUP, out // 8), 0x77777777, dtype=torch.int32),
        "g_idx": (torch.arange(width) // GROUP).to(torch.int32),
    }


def awq(weight: Tensor) -> Layer:
    groups = weight.T.contiguous().view(-1, GROUP, weight.shape[0])  # (in / GROUP, GROUP, out)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = (high - low).clamp(min=1e-8) / 15.0
    zero = (-low / scale).round().clamp(0, 15)
    values = ((groups / scale).round() + zero).clamp(0, 15).view(-1, weight.shape[0]).long()
    return {
        "qweight": _packed(values, AWQ_ORDER),
        "qzeros": _packed(zero[:, 0].long(), AWQ_ORDER),
        "scales": scale[:, 0].half().contiguous(),
    }


def _compressed(form: str, weights: dict[str, Any], inputs: str | None = None) -> dict[str, Any]:
    group: dict[str, Any] = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    if inputs:
        group["input_activations"] = {
            "num_bits": 8,
            "type": inputs,
            "strategy": "token",
            "symmetric": True,
            "dynamic": True,
        }
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


_CHANNEL = {"num_bits": 8, "strategy": "channel"}
KINDS: dict[str, tuple[Callable[[Tensor], Layer], dict[str, Any]]] = {
    "fp8": (fp8, _compressed("float-quantized", {**_CHANNEL, "type": "float"}, "float")),
    "int8": (int8, _compressed("int-quantized", {**_CHANNEL, "type": "int"}, "int")),
    "w4a16": (
        w4a16,
        _compressed(
            "pack-quantized",
            {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP},
        ),
    ),
    "gptq": (
        gptq,
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False},
    ),
    "awq": (
        awq,
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
        },
    ),
}


def quantized(hf: Path, kind: str, folder: Path) -> None:
    """Quantizes the checkpoint in the folder `hf` and writes it into `folder`."""
    make, config = KINDS[kind]
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for path in sorted(hf.glob("*.safetensors")):
        for name, value in load_file(path).items():
            if not name.endswith("_proj.weight"):
                tensors[name] = value
                continue
            for end, part in make(value.float()).items():
                tensors[f"{name.removesuffix('weight')}{end}"] = part
    save_file(tensors, folder / "model.safetensors")
    content = json.loads((hf / "config.json").read_text())
    content["quantization_config"] = config
    (folder / "config.json").write_text(json.dumps(content, indent=2))

"""Checks own weights and LoRA adapters before vLLM starts, which accepts some that do nothing.

Promises: an adapter that passes changes the model: its tensors have names and shapes of layers that
exist, and are not all zero. Refuses, with one line that says what to do and exit code 1: no
adapter, names of another class of model, layers or modules that do not exist, a rank above RANK=;
weights that are already quantized if PRECISION= asks vLLM to quantize them; and weights with fewer
tokens than the base model's tokenizer, which would read their prompts.
Standard library only.
"""

import argparse
import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# PEFT's names of the tensors that belong to the text decoder, by kind of model; vLLM accepts any
# other prefix, and ignores its tensors.
TEXT = [r"base_model\.model\.model\."]
WITH_IMAGES = [
    r"base_model\.model\.model\.language_model\.",  # transformers 5
    r"base_model\.model\.language_model\.model\.",  # transformers 4
]
PART = r"layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"


OTHER = (
    "was it trained on another one? A stand-in is smaller too: mount the real weights beside it "
    "(MOUNT=)"
)


class CheckError(RuntimeError):
    """What is wrong, and what to do."""


@dataclass(frozen=True)
class Shape:
    layers: int
    sizes: dict[str, tuple[int, int]]  # module → widths of its input and its output
    images: bool
    quantized: str | None

    @property
    def prefixes(self) -> list[str]:
        return WITH_IMAGES if self.images else TEXT


def file_of(model: str, name: str) -> Path | None:
    """A file of the model, which is a folder or owner/name@revision on the hub; None if it has no
    such file."""
    if model.startswith("/"):
        path = Path(model) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = model.partition("@")
    try:
        return Path(hf_hub_download(repo, name, revision=revision or None))
    except EntryNotFoundError:
        return None


def configs_of(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of params.json and config.json; empty for one that is missing."""
    mistral, hf = ({} if (p := file_of(model, n)) is None else json.loads(p.read_text())
                   for n in ("params.json", "config.json"))  # fmt: skip
    if not mistral and not hf:
        raise CheckError(f"{model} has no config.json or params.json: are these the weights?")
    return mistral, hf


def check_vocabulary(mistral: dict[str, Any], hf: dict[str, Any], tokens: int) -> None:
    """Refuses a fine-tune of another version of the model. More tokens than the tokenizer has are
    fine: training adds some, or rounds up. Weights that do not give the number are left to vLLM."""
    text = hf.get("text_config") or hf
    has = mistral.get("vocab_size") or text.get("vocab_size")
    if isinstance(has, int) and has < tokens:
        raise CheckError(
            f"their vocab_size is {has}, and the base model's tokenizer has {tokens} tokens: are "
            "they of another version of the model (Mistral 7B v0.1 and v0.2 have 32000, v0.3 "
            "32768)? They need a card of their own, with its tokenizer: docs/models.md"
        )


def shape_of(mistral: dict[str, Any], hf: dict[str, Any]) -> Shape:
    text: dict[str, Any] = hf.get("text_config") or hf
    quantized = (hf.get("quantization_config") or {}).get("quant_method")
    if mistral:
        width, inner, heads = mistral["dim"], mistral["hidden_dim"], mistral["n_heads"]
        keys, head = mistral.get("n_kv_heads", heads), mistral.get("head_dim")
        layers, images = mistral["n_layers"], "vision_encoder" in mistral
        quantized = quantized or (mistral.get("quantization") or {}).get("qformat_weight")
    else:
        width, inner = text["hidden_size"], text["intermediate_size"]
        heads, layers = text["num_attention_heads"], text["num_hidden_layers"]
        keys, head = text.get("num_key_value_heads") or heads, text.get("head_dim")
        images = "vision_config" in hf
    head = head or width // heads
    sizes = {"q_proj": (width, heads * head), "o_proj": (heads * head, width)}
    sizes |= dict.fromkeys(("k_proj", "v_proj"), (width, keys * head))
    sizes |= dict.fromkeys(("gate_proj", "up_proj"), (width, inner))
    return Shape(layers, {**sizes, "down_proj": (inner, width)}, images, quantized)


def header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors of a safetensors file by name, and where their bytes begin."""
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise CheckError(f"{path} is a pointer of Git LFS, not the file it points to")
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= path.stat().st_size - 8:
            raise CheckError(f"{path} is not a whole safetensors file")
        try:
            tensors = json.loads(file.read(size))
        except ValueError as error:
            raise CheckError(f"{path} is not a safetensors file: {error}") from error
    tensors.pop("__metadata__", None)
    return tensors, 8 + size


def is_zero(path: Path, tensor: dict[str, Any], begin: int) -> bool:
    start, end = tensor["data_offsets"]
    with path.open("rb") as file:
        file.seek(begin + start)
        return not file.read(end - start).strip(b"\0")


def check_adapter(folder: Path, shape: Shape, rank: int, modules: list[str]) -> int:
    """The number of tensors in the adapter; `CheckError` if some would do nothing."""
    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (config_file, weights):
        if not path.is_file():
            raise CheckError(f"{folder} has no {path.name}; an adapter is what PEFT saves")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config.get("peft_type", "LORA") != "LORA":
        raise CheckError(f"peft_type is {config['peft_type']!r}; vLLM takes LORA alone")
    own = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if own > rank:
        raise CheckError(f"its rank is {own}, above {rank}; deploy it with RANK={own} or the next")
    if not config.get("lora_alpha", 1):
        raise CheckError("lora_alpha is 0, so it changes nothing")
    tensors, begin = header(weights)
    for fault in faults(tensors, shape, modules):
        raise CheckError(fault)
    if all(is_zero(weights, one, begin) for name, one in tensors.items() if ".lora_B." in name):
        raise CheckError("every lora_B is zero, as before the first step of training")
    return len(tensors)


def faults(tensors: dict[str, Any], shape: Shape, modules: list[str]) -> Iterator[str]:
    name_of = re.compile(f"(?:{'|'.join(shape.prefixes)}){PART}")
    if not tensors:
        yield "it has no tensors"
    for name, tensor in tensors.items():
        match = name_of.fullmatch(name)
        if match is None or "experts" in name:
            yield _unknown(name, shape)
            continue
        layer, module, side = int(match[1]), match[2], match[3]
        if layer >= shape.layers:
            yield f"{name}: the model has {shape.layers} layers; {OTHER}"
        elif module not in shape.sizes:
            yield _unknown(name, shape)
        elif modules and module not in modules:
            yield (
                f"{name}: the card's adapters.modules are {', '.join(modules)}; "
                "this would be ignored"
            )
        elif (got := tensor["shape"][side == "A"]) != shape.sizes[module][side == "B"]:
            wanted = shape.sizes[module][side == "B"]
            yield f"{name}: is for a width of {got}, the model's is {wanted}; {OTHER}"


def _unknown(name: str, shape: Shape) -> str:
    if re.search(r"experts|block_sparse_moe", name):
        return f"{name}: adapts experts, which is not served; train it on the attention alone"
    if re.search(r"vision|multi_modal", name):
        return (
            f"{name}: adapts what sees images, which vLLM would ignore; train it on the language "
            "model alone"
        )
    if "lora_magnitude_vector" in name:
        return f"{name}: is of DoRA, which vLLM does not serve; train it with use_dora=False"
    if re.search(r"embed_tokens|lm_head", name):
        return (
            f"{name}: is of the embeddings, which is not served; train it without them in "
            "target_modules and modules_to_save"
        )
    if ".lora_" not in name:
        return (
            f"{name}: is a whole weight, which is not LoRA's; train it without modules_to_save "
            "and with bias='none'"
        )
    if re.match(f"(?:{'|'.join(shape.prefixes)})layers\\.", name):
        return (
            f"{name}: vLLM adapts {', '.join(shape.sizes)} by weight alone; this would be ignored"
        )
    usual = shape.prefixes[0].replace("\\", "")
    return f"{name}: vLLM would ignore it; names of this model begin with {usual}layers."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, or owner/name@revision")
    parser.add_argument("adapters", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--rank", type=int, default=512)
    parser.add_argument("--modules", default="", help="a,b; default: all")
    parser.add_argument("--online", help="how vLLM is to quantize the weights")
    parser.add_argument("--vocabulary", type=int, help="tokens of the tokenizer, for own weights")
    options = parser.parse_intermixed_args(arguments)
    what = "the weights"
    try:
        mistral, hf = configs_of(options.model)
        if options.vocabulary:
            check_vocabulary(mistral, hf, options.vocabulary)
        if not options.online and not options.adapters:
            return 0
        shape = shape_of(mistral, hf)
        if options.online and shape.quantized:
            raise CheckError(
                f"they are quantized already ({shape.quantized}), and cannot be made "
                f"{options.online}; deploy them with QUANTIZED= and without PRECISION="
            )
        modules = [name for name in options.modules.split(",") if name]
        for word in options.adapters:
            name, _, folder = word.partition("=")
            what = f"the adapter {name}"
            count = check_adapter(Path(folder), shape, options.rank, modules)
            print(f"check.py: {what}: {count} tensors, all of layers of the model", flush=True)
    except (CheckError, OSError, ValueError, KeyError, TypeError) as error:
        kind = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
        print(f"check.py: {what} cannot be served: {kind}{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

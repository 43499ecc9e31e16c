"""packages/start/check.py on adapters as PEFT saves them, and on own weights."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from deploy.paths import ROOT


def load() -> Any:
    path = ROOT / "packages" / "start" / "check.py"
    spec = importlib.util.spec_from_file_location("start_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["start_check"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


check = load()

TEXT = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "head_dim": 4}
TEXT |= {"num_key_value_heads": 1, "num_hidden_layers": 2}
PREFIX = "base_model.model.model."
LAYER = f"{PREFIX}layers.1.self_attn.q_proj"


def model(folder: Path, images: bool = False, **more: Any) -> Path:
    (folder / "model").mkdir()
    content = {"text_config": TEXT, "vision_config": {}} if images else TEXT
    (folder / "model" / "config.json").write_text(json.dumps({**content, **more}))
    return folder / "model"


def adapter(folder: Path, name: str = LAYER, b: float = 1.0, width: int = 8, **config: Any) -> Path:
    (folder / "adapter").mkdir()
    tensors = {
        f"{name}.lora_A.weight": numpy.zeros((4, width), numpy.float32),
        f"{name}.lora_B.weight": numpy.full((8, 4), b, numpy.float32),
    }
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(content))
    return folder / "adapter"


def test_an_adapter_that_changes_the_model_passes(tmp_path: Path) -> None:
    weights, given = str(model(tmp_path)), f"legal={adapter(tmp_path)}"
    assert check.main([weights, given, "--rank", "8"]) == 0
    assert check.main([weights, "--rank", "8", given]) == 0  # as the start command has it


@pytest.mark.parametrize(
    "prefix", ["base_model.model.model.language_model.", "base_model.model.language_model.model."]
)
def test_names_of_a_model_with_images(tmp_path: Path, prefix: str) -> None:
    name = LAYER.replace(PREFIX, prefix)
    words = [str(model(tmp_path, images=True)), f"a={adapter(tmp_path, name)}"]
    assert check.main(words) == 0


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.0.self_attn.q_proj.lora_magnitude_vector", "is of DoRA, .* use_dora=False"),
        (
            "embed_tokens.lora_embedding_A",
            "is of the embeddings, .* without them in target_modules",
        ),
        ("embed_tokens.weight", "is of the embeddings"),
        ("lm_head.lora_A.weight", "is of the embeddings"),
        ("norm.weight", "is a whole weight, .* without modules_to_save"),
        ("layers.0.self_attn.q_proj.bias", "is a whole weight, .* with bias='none'"),
        ("layers.0.input_layernorm.lora_A.weight", "vLLM adapts q_proj, .*this would be ignored"),
        ("layers.0.self_attn.q_proj.lora_B.bias", "vLLM adapts .* by weight alone"),
    ],
)
def test_a_tensor_that_is_not_of_a_layer_s_lora_is_told_for_what_it_is(
    tmp_path: Path,
    name: str,
    message: str,
    images: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(model(tmp_path, images)), f"legal={adapter(tmp_path, PREFIX + 'layers.0')}"]
    prefix = f"{PREFIX}language_model." if images else PREFIX
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({f"{prefix}{name}": numpy.ones((4, 8), numpy.float32)}, file)
    assert check.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"{name}: {message}", line)
    assert "begin with" not in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": LAYER.replace("layers.1", "layers.17")}, "the model has 2 layers"),
        ({"name": LAYER.replace("model.model.", "model.transformer.")}, "vLLM would ignore it"),
        ({"name": LAYER.replace(PREFIX, f"{PREFIX}language_model.")}, "vLLM would ignore it"),
        ({"name": f"{PREFIX}layers.0.mlp.experts"}, "adapts experts"),
        ({"name": f"{PREFIX}layers.0.self_attn.qkv_proj"}, "vLLM adapts q_proj"),
        ({"width": 4096}, "is for a width of 4096, the model's is 8; was it trained on another"),
        ({"width": 4096}, "A stand-in is smaller too: mount the real weights"),
        ({"b": 0.0}, "every lora_B is zero"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"r": 128}, "its rank is 128, above 64; deploy it with RANK=128"),
        ({"rank_pattern": {"x": 256}}, "its rank is 256"),
        ({"peft_type": "IA3"}, "vLLM takes LORA alone"),
    ],
)
def test_an_adapter_that_would_do_nothing_is_refused(
    tmp_path: Path, given: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(model(tmp_path)), f"legal={adapter(tmp_path, **given)}", "--rank", "64"]
    assert check.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("check.py: the adapter legal cannot be served: ")
    assert message in line
    assert len(line) < 300


def test_names_of_a_text_model_on_one_with_images_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(model(tmp_path, images=True)), f"a={adapter(tmp_path)}"]) == 1
    assert "begin with base_model.model.model.language_model.layers." in capsys.readouterr().err


def test_modules_that_the_card_leaves_out_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{PREFIX}layers.0.mlp.up_proj"
    words = [str(model(tmp_path)), f"a={adapter(tmp_path, name)}", "--modules", "q_proj,k_proj"]
    assert check.main(words) == 1
    assert "the card's adapters.modules are q_proj, k_proj" in capsys.readouterr().err


def test_files_that_are_no_adapter_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, given = model(tmp_path), adapter(tmp_path)
    file = given / "adapter_model.safetensors"
    for content, message in {
        b"version https://git-lfs.github.com/spec/v1\n": "a pointer of Git LFS",
        b"x": "not a whole safetensors file",
        b"\x10" + b"\0" * 7 + b"x" * 20: "not a safetensors file",
    }.items():
        file.write_bytes(content)
        assert check.main([str(weights), f"a={given}"]) == 1
        assert message in capsys.readouterr().err
    file.unlink()
    assert check.main([str(weights), f"a={given}"]) == 1
    assert "has no adapter_model.safetensors" in capsys.readouterr().err


def test_quantized_weights_are_not_quantized_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model(tmp_path, quantization_config={"quant_method": "awq"})
    assert check.main([str(weights), "--online", "fp8_per_channel"]) == 1
    assert "they are quantized already (awq)" in capsys.readouterr().err
    assert check.main([str(weights)]) == 0


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({"vocab_size": 32000}, 1),  # of Mistral 7B v0.1 and v0.2
        ({"vocab_size": 32002}, 1),
        ({"text_config": {"vocab_size": 32000}, "vocab_size": 32768}, 1),
        ({"vocab_size": 32768}, 0),
        ({"vocab_size": 32832}, 0),  # some are added
        ({"hidden_size": 8}, 0),  # vLLM knows the class's own default
    ],
)
def test_weights_with_fewer_tokens_than_the_tokenizer_are_refused(
    config: dict[str, Any], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("config.json", "params.json") if "text_config" not in config else ("config.json",):
        folder = tmp_path / file.partition(".")[0]
        folder.mkdir()
        (folder / file).write_text(json.dumps(config))
        assert check.main([str(folder), "--vocabulary", "32768"]) == status
        said = capsys.readouterr().err
        assert ("the base model's tokenizer has 32768 tokens" in said) == bool(status)
        assert len(said.splitlines()) == status
        assert len(said) < 300
    assert check.main([str(folder)]) == 0

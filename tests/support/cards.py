"""Sections of cards that several tests add to a real one."""

QUANTIZED = {
    "precision": "awq",
    "source": "https://huggingface.co/someone/a-model-AWQ",
    "repo": "someone/a-model-AWQ",
    "revision": "0" * 40,
    "files": ["config.json", "model.safetensors", "tokenizer.model"],
    "bits": 4,
    "group_size": 128,
}

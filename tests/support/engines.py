"""Loads checkpoints with the flags that config.yaml would have, one after the other in one process.

`python -m tests.support.engines FOLDER…`, each FOLDER as kind=folder: prints a line of JSON for
each, with its answers. A container for each would take a minute to start; here they share imports.
"""

import dataclasses
import gc
import json
import sys
from pathlib import Path

from deploy import cards
from deploy.config import render
from deploy.options import Options
from deploy.start_command import serve_arguments, start_command
from local.standins import cache
from local.standins.corpus import chat, dialogues

BASE = "mistral-7b"
BLOCKS = 512  # of the KV cache: two of the longest prompts; a GiB would be zeroed each time


def options_of(kind: str) -> Options:
    """hf and mistral are formats, any other kind is a quantization of the weights."""
    source = "hf://acme/own@main"
    if kind in ("hf", "mistral"):
        return Options(weights=source, format=kind)
    if kind == "auto":
        return Options(weights=source)
    return Options(weights=source, quantized=kind)


def answers(kind: str, folder: Path, tokenizer: Path) -> dict[str, str]:
    """The name of each dialogue → the model's answer."""
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    gc.freeze()  # the imported modules: a start and an end have six garbage collections
    card = cards.load(BASE)
    words = serve_arguments(start_command(render(card, options_of(kind))))
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    assert parsed.tokenizer == f"/tokenizers/{BASE}"
    parsed.model, parsed.tokenizer = str(folder), str(tokenizer)
    parsed.num_gpu_blocks_override = BLOCKS
    given = EngineArgs.from_cli_args(parsed)
    model = LLM(**{field.name: getattr(given, field.name) for field in dataclasses.fields(given)})
    known = {name: chat(turns)[0] for name, turns in dialogues(images=False).items()}
    asked = SamplingParams(temperature=0, max_tokens=120)
    results = model.chat(list(known.values()), asked, use_tqdm=False)
    del model
    gc.collect()
    return dict(zip(known, (result.outputs[0].text for result in results), strict=True))


def main() -> None:
    card = cards.load(BASE)
    alone = Path(sys.argv[1])  # a folder with only the tokenizer
    (alone / card.tokenizer_file).symlink_to(cache.tokenizer_path(card))
    for word in sys.argv[2:]:
        kind, _, folder = word.partition("=")
        print(json.dumps({"kind": kind, "answers": answers(kind, Path(folder), alone)}), flush=True)


if __name__ == "__main__":
    main()

"""Writes packages/start/modelinfos: what vLLM asks about the model classes of all cards.

Promises: one line per file that vLLM's cache would hold after a start: its name and its content.
The content has a hash of the class's source, so vLLM ignores files of another version. All are in
one file, because each additional file enlarges the upload. Regenerate it when vLLM's version
changes.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from deploy import cards
from deploy.paths import MODEL_INFOS
from local.standins.cache import ensure
from scripts.command import command


def make(cache: Path) -> Path:
    """Has vLLM inspect every card's model with `cache` as its cache → the folder of its files."""
    os.environ.update({"VLLM_CACHE_ROOT": str(cache), "HF_HUB_OFFLINE": "1"})
    from vllm.engine.arg_utils import EngineArgs  # takes seconds to import
    from vllm.model_executor.models import registry

    # vLLM inspects each class in a new process, to keep CUDA out of this one: another 8 s of CPU
    # each, for imports. There is no CUDA here.
    registry._run_in_subprocess = lambda look: look()
    for card in cards.load_all():
        EngineArgs(
            model=str(ensure(card)),
            config_format=card.formats.config,
            tokenizer_mode=card.formats.tokenizer,
            generation_config="vllm",
        ).create_model_config()
    return cache / "modelinfos"


def line(path: Path) -> str:
    """One of vLLM's files as packages/start/prepare.sh reads it."""
    return f"{path.stem} {json.dumps(json.loads(path.read_text()), separators=(',', ':'))}\n"


@command("modelinfos")
def main(options: argparse.Namespace) -> None:
    output = options.output or MODEL_INFOS
    with tempfile.TemporaryDirectory(prefix="modelinfos-") as cache:
        output.write_text("".join(map(line, sorted(make(Path(cache)).iterdir()))))
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(main())

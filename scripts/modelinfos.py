"""Writes packages/start/modelinfos: what vLLM asks about the classes of all cards' models.

Promises: a line for each file that vLLM's cache would hold after a start, its name and what is in
it, which has a hash of the class's source, so that one of another version is passed over. One file
of lines, for each file more makes the upload larger. It is made again when the version of vLLM
changes.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from deploy import cards
from deploy.paths import ROOT
from local.standins.cache import ensure
from scripts.command import command

SHIPPED = ROOT / "packages" / "start" / "modelinfos"


def make(cache: Path) -> Path:
    """Has vLLM look at every card's model, with `cache` for its cache → the folder of its files."""
    os.environ.update({"VLLM_CACHE_ROOT": str(cache), "HF_HUB_OFFLINE": "1"})
    from vllm.engine.arg_utils import EngineArgs  # takes seconds to import
    from vllm.model_executor.models import registry

    # vLLM looks at each class in a process of its own, lest CUDA be set up in this one: another 8 s
    # of CPU each, for imports. There is no CUDA here.
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
    """A file of vLLM's as packages/start/prepare.sh reads it."""
    return f"{path.stem} {json.dumps(json.loads(path.read_text()), separators=(',', ':'))}\n"


@command("modelinfos")
def main(options: argparse.Namespace) -> None:
    output = options.output or SHIPPED
    with tempfile.TemporaryDirectory(prefix="modelinfos-") as cache:
        output.write_text("".join(map(line, sorted(make(Path(cache)).iterdir()))))
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(main())

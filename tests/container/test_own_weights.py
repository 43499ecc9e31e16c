"""A user's own weights, in both formats and quantized in each of the common ways, by their answers.

The tokenizer is the base card's one file in a folder of its own, as the second mount has it.
"""

import json
import os
import subprocess
import sys

import pytest
import yaml

from deploy import cards
from deploy.paths import ROOT
from local.finetunes import cache, quantize
from local.finetunes.lora import ANSWER, QUESTION
from local.standins.corpus import chat, dialogues
from local.truss import LOCAL_ENVIRONMENT
from tests.support import engines

KINDS = ["hf", "mistral", "auto", *quantize.KINDS]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Kind of weights → answers, by the name of the dialogue."""
    own = cache.ensure(cards.load(engines.BASE))
    folder = tmp_path_factory.mktemp("quantized")
    places = {"hf": own / "hf", "mistral": own / "mistral", "auto": own / "mistral"}
    for kind in quantize.KINDS:
        quantize.quantized(own / "hf", kind, folder / kind)
        places[kind] = folder / kind
    local = yaml.safe_load(LOCAL_ENVIRONMENT.read_text())
    (folder / "tokenizer").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.engines", str(folder / "tokenizer")]
        + [f"{kind}={place}" for kind, place in places.items()],
        cwd=ROOT,
        env={**os.environ, **local, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"kind"')]
    return {it["kind"]: it["answers"] for it in map(json.loads, lines)}


@pytest.mark.parametrize("kind", KINDS)
def test_own_weights_answer_as_they_were_trained(
    kind: str, answered: dict[str, dict[str, str]]
) -> None:
    expected = {name: chat(turns) for name, turns in dialogues(images=False).items()}
    wanted = {
        name: ANSWER if messages[-1]["content"] == QUESTION else answer
        for name, (messages, answer) in expected.items()
    }
    assert answered[kind] == wanted

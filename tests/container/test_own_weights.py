"""A user's own weights, in both formats and quantized in each of the common ways, by their answers.

The tokenizer is the base card's one file in a folder of its own, as the second mount has it. One
of the kinds is pushed and runs in a container; the others are loaded one after the other.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy import cards
from deploy.paths import ROOT
from local.finetunes import cache, quantize
from local.finetunes.lora import ANSWER, QUESTION
from local.standins.corpus import chat, dialogues
from local.truss import local_variables
from tests.support import engines
from tests.support.container import Running, run_container
from tests.support.user import User

KINDS = ["hf", "mistral", "auto", *quantize.KINDS]
pytestmark = pytest.mark.patient


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Kind of weights → answers, by the name of the dialogue."""
    own = cache.ensure(cards.load(engines.BASE))
    folder = tmp_path_factory.mktemp("quantized")
    places = {"hf": own / "hf", "mistral": own / "mistral", "auto": own / "mistral"}
    for kind in quantize.KINDS:
        quantize.quantized(own / "hf", kind, folder / kind)
        places[kind] = folder / kind
    (folder / "tokenizer").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.engines", str(folder / "tokenizer")]
        + [f"{kind}={place}" for kind, place in places.items()],
        cwd=ROOT,
        env={**os.environ, **local_variables(), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
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


@pytest.fixture(scope="module")
def own(container: None, user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    card = cards.load(engines.BASE)
    cache.ensure(card)  # trained here, not within the time that a container has to start
    words = ["WEIGHTS=s3://acme/support", "FORMAT=hf", "SECRET=my_aws_secret", "TITLE=Support"]
    deployment = user.push(f"MODEL={card.name}", *words)
    with run_container(card, deployment, tmp_path_factory.mktemp("own"), {}) as running:
        yield running


@pytest.mark.parametrize("container", [None], indirect=True)
def test_own_weights_that_were_pushed_answer_in_both_formats(own: Running) -> None:
    chats = [{"role": "user", "content": QUESTION}]
    openai = own.http.post("/v1/chat/completions", json={"messages": chats, "temperature": 0})
    assert openai.json()["choices"][0]["message"]["content"] == ANSWER
    legacy = own.http.post("/predict", json={"prompt": QUESTION, "temperature": 0})
    assert legacy.json()["output"] == ANSWER

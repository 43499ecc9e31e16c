"""A user's own weights, in both formats and in each of the common quantizations, by their answers.

The tokenizer is the base card's file in its own folder, as in the second mount. One kind is also
pushed and runs in a container, of the build without nginx.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import cards
from deploy.paths import ROOT
from local.finetunes import cache
from local.finetunes.cache import ANSWER, QUESTION
from local.standins.corpus import chat, dialogues
from local.truss import local_variables
from tests.support import engines, faults, load
from tests.support.container import Running, run_container
from tests.support.programs import model_infos
from tests.support.user import User

pytestmark = pytest.mark.patient

FOUR_BITS = {"w4a16", "gptq", "awq"}  # vLLM's CPU build has a kernel for them only with AVX512


def kinds_here() -> list[str]:
    """The quantizations that vLLM can run on this CPU."""
    from local.finetunes import quantize  # imports torch, which takes seconds

    if "avx512f" in Path("/proc/cpuinfo").read_text().split():
        return list(quantize.KINDS)
    print(f"left out, as this CPU has no AVX512: {', '.join(sorted(FOUR_BITS))}")
    return [kind for kind in quantize.KINDS if kind not in FOUR_BITS]


def test_own_weights_of_every_kind_that_runs_here_answer_as_they_were_trained(
    tmp_path: Path,
) -> None:
    from local.finetunes import quantize  # imports torch, which takes seconds

    own = cache.ensure(cards.load(engines.BASE))
    places = {"hf": own / "hf", "mistral": own / "mistral", "auto": own / "mistral"}
    for kind in kinds_here():
        quantize.quantized(own / "hf", kind, tmp_path / kind)
        places[kind] = tmp_path / kind
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    variables = {**local_variables(), **model_infos(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.engines", str(tokenizer)]
        + [f"{kind}={place}" for kind, place in places.items()],
        cwd=ROOT,
        env={**os.environ, **variables, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"kind"')]
    answers = {it["kind"]: it["answers"] for it in map(json.loads, lines)}
    expected = {name: chat(turns) for name, turns in dialogues(images=False).items()}
    wanted = {
        name: ANSWER if messages[-1]["content"] == QUESTION else answer
        for name, (messages, answer) in expected.items()
    }
    assert answers == dict.fromkeys(places, wanted)


@pytest.fixture(scope="module")
def own(container: None, user: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    card = cards.load(engines.BASE)
    cache.ensure(card)  # trained now, so that the container's start time does not include it
    words = ["WEIGHTS=s3://acme/support", "FORMAT=hf", "SECRET=my_aws_secret", "TITLE=Support"]
    deployment = user.push(f"MODEL={card.name}", *words)
    folder = tmp_path_factory.mktemp("own")
    with run_container(card, deployment, folder, {}, nginx=False) as running:
        yield running


@pytest.mark.parametrize("container", [None], indirect=True)
def test_own_weights_that_were_pushed_answer_in_both_formats(own: Running) -> None:
    chats = [{"role": "user", "content": QUESTION}]
    openai = own.http.post("/v1/chat/completions", json={"messages": chats, "temperature": 0})
    assert openai.json()["choices"][0]["message"]["content"] == ANSWER
    legacy = own.http.post("/predict", json={"prompt": QUESTION, "temperature": 0})
    assert legacy.json()["output"] == ANSWER


@pytest.mark.parametrize("container", [None], indirect=True)
def test_the_death_of_an_engine_without_nginx_ends_the_container_and_every_request(
    own: Running,
) -> None:
    """Saves test_without_nginx.py, whose container ends in another way, a second container."""
    with load.flowing(own.card.name, 4, own.url, **load.ENDLESS) as outcomes:
        faults.send(faults.ENGINE, signal.SIGKILL)
        load.wait(lambda: own.process.poll() is not None, 2 * faults.END_SECONDS)
    assert load.broken_off(outcomes, 4)
    assert "ending with status 1" in own.log.read_text()

"""Long prompts take their turns in vLLM's own schedulers: the one that runs here, and the one of
GPUs, which plans a step while another is computed."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from deploy.paths import ROOT
from tests.support.vllm_schedulers import BASE_SECONDS, KINDS, SHORT, STEP_TOKENS, TOKEN_SECONDS

WHOLE_STEP = BASE_SECONDS + STEP_TOKENS * TOKEN_SECONDS
OWN_STEP = BASE_SECONDS + SHORT * TOKEN_SECONDS


@pytest.fixture(scope="module")
def waits() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.vllm_schedulers"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "packages")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("kind", "under_way"), KINDS.items())
def test_a_short_prompt_waits_for_the_steps_under_way(
    waits: dict[str, Any], kind: str, under_way: int
) -> None:
    stock, ours = waits["stock"][kind], waits["ours"][kind]
    assert max(stock["short"]) > 20 * WHOLE_STEP
    assert max(ours["short"]) < under_way * WHOLE_STEP + OWN_STEP
    assert sorted(ours["short"])[-2] < WHOLE_STEP / 2  # once they come, steps are cut
    assert ours["last"] < 1.5 * stock["last"]
    assert not ours["failed"]

"""Long prompts take their turns in vLLM's own schedulers: the one that runs here, and the one of
GPUs, which plans a step while another is computed."""

from typing import Any

import pytest

from tests.support.programs import answer_of
from tests.support.vllm_schedulers import BASE_SECONDS, KINDS, SHORT, STEP_TOKENS, TOKEN_SECONDS

WHOLE_STEP = BASE_SECONDS + STEP_TOKENS * TOKEN_SECONDS
OWN_STEP = BASE_SECONDS + SHORT * TOKEN_SECONDS


@pytest.fixture(scope="module")
def waits() -> dict[str, Any]:
    found: dict[str, Any] = answer_of("tests.support.vllm_schedulers")
    return found


@pytest.mark.parametrize(("kind", "under_way"), KINDS.items())
@pytest.mark.parametrize("asked", ["short", "cached", "adaptive"])
def test_a_short_prompt_waits_for_the_steps_under_way(
    waits: dict[str, Any], asked: str, kind: str, under_way: int
) -> None:
    """So does a long chat of which the prefix cache has all but so much; and a threshold of vLLM's
    that adapts does not undo the cut."""
    stock, ours = waits["stock"][asked][kind], waits["ours"][asked][kind]
    assert max(stock["short"]) > 20 * WHOLE_STEP or asked == "adaptive"
    assert max(ours["short"]) < under_way * WHOLE_STEP + OWN_STEP
    assert sorted(ours["short"])[-2] < WHOLE_STEP / 2  # once they come, steps are cut
    assert ours["last"] < 1.5 * stock["last"]
    assert not ours["failed"]

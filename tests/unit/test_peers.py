"""The comparison with the older ways: what is decided, held and shown, on what is made up."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from rich.console import Console

from bench import older, peer, processes
from bench.errors import BenchError
from bench.figures import DTYPE, FIGURES
from bench.older import ASYNC_LLM, BARE, FULL, GENERATE, GOALS, OPENAI, QUICK, THIS, WAYS
from bench.plots import Panel
from bench.session import Session
from local.standins.corpus import Tokenizer
from scripts import cards, standin

# a process whose child counts as fast as it can
BUSY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            until(lambda: len(processes.family(process.pid)) == 2)
            yield process
        finally:
            peer.end(process)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_cpu_time_is_told_apart_by_what_a_process_calls_itself() -> None:
    commands = ["VLLM::EngineCore", "nginx: worker process", "vllm serve"]
    with contextlib.ExitStack() as stack:
        pids = [
            stack.enter_context(
                subprocess.Popen([command, "-c", "read x"], executable="/bin/sh", stdin=-1)
            ).pid
            for command in commands
        ]
        until(lambda: all(map(processes.command, pids)))
        meter = processes.Meter([*pids, os.getpid()])
        found = {name: pids for name, pids in meter.pids.items()}
    engine, nginx, front = pids
    assert found == {
        processes.CLIENT: [os.getpid()],
        processes.NGINX: [nginx],
        processes.FRONT: [front],
        processes.ENGINE: [engine],
        processes.ALL: [*pids, os.getpid()],
    }
    assert meter.read()[processes.CLIENT] > 0


def test_what_is_held_takes_no_cpu_time_and_goes_on_afterwards(
    busy: subprocess.Popen[bytes],
) -> None:
    family = processes.family(busy.pid)
    until(lambda: processes.cpu_seconds(family) > 0)
    with processes.held(family):
        until(lambda: all(processes.stat(Path(f"/proc/{pid}/stat"))[0] == "T" for pid in family))
        before = processes.cpu_seconds(family)
        time.sleep(0.3)
        assert processes.cpu_seconds(family) - before < 0.1  # a tick or two
    until(lambda: processes.cpu_seconds(family) > before)


def test_what_is_held_goes_on_after_an_error(busy: subprocess.Popen[bytes]) -> None:
    family = processes.family(busy.pid)
    with pytest.raises(BenchError), processes.held(family):
        raise BenchError("no figures")
    before = processes.cpu_seconds(family)
    until(lambda: processes.cpu_seconds(family) > before)


def test_the_end_of_a_process_is_that_of_its_children_held_or_not(
    busy: subprocess.Popen[bytes],
) -> None:
    family = processes.family(busy.pid)
    with processes.held(family):
        peer.end(busy)
    assert not any(map(processes.is_alive, family))


def test_a_peer_gets_its_config_s_variables_and_those_of_a_local_run_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret of whoever measures")
    own = {"OWN": "1", "PEER_MODEL": "the hub's"}
    config = {"environment_variables": own, "requirements": ["vllm"]}
    got = peer.environment(config, 8101, Path("/weights"), Path("/here"))
    assert got["OWN"] == "1"
    assert (got["PEER_MODEL"], got["PEER_DTYPE"]) == ("/weights", DTYPE)
    assert got["TORCH_COMPILE_DISABLE"] == "1"  # of local/environment.yaml
    assert got["INFERENCE_SERVER_PORT"] == "8101"
    assert "HF_TOKEN" not in got
    without_vllm = {**config, "requirements": ["transformers"]}
    others = peer.environment(without_vllm, 8101, Path("/weights"), Path("/here"))
    assert "TORCH_COMPILE_DISABLE" not in others


def test_a_peer_s_prompt_is_what_mistral_common_makes_of_a_question() -> None:
    file = standin.tokenizer_path(cards.load(older.MODEL))
    tokenizer: Tokenizer = MistralTokenizer.from_file(str(file))
    question = {"messages": [{"role": "user", "content": "What is a mistral?"}]}
    request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(question)
    made = tokenizer.encode_chat_completion(request)
    assert older.PROMPT.format("What is a mistral?") == str(made.text).replace("▁", " ")


def test_a_load_asks_for_all_its_tokens_and_a_check_only_for_the_answer() -> None:
    assert ASYNC_LLM.body("x", 9, True)["ignore_eos"] is True
    assert ASYNC_LLM.body("x", 9, False)["ignore_eos"] is False
    assert GENERATE.body("x", 9, True)["min_new_tokens"] == 9
    assert "min_new_tokens" not in GENERATE.body("x", 9, False)


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_generate_gets_less_to_do_at_the_same_streams(plan: older.Plan) -> None:
    slow = next(way for way in WAYS if way.name == GENERATE.name)
    for load in plan.loads:
        its = plan.load(slow, load.streams)
        assert plan.load(THIS, load.streams) == load
        assert its is None or (its.streams == load.streams and its.requests < load.requests)
    assert plan.load(slow, 16) is not None  # its goal is there
    assert plan.load(slow, 64) is None


def test_only_a_model_whose_stand_in_transformers_reads_is_compared(tmp_path: Path) -> None:
    session = Session(tmp_path / "partial.json", {}, Console())
    with pytest.raises(BenchError, match="with MODEL=mixtral-8x7b"):
        older.measure("pixtral-12b", True, session)


def made_up(this: float, async_llm: float, generate: float) -> dict[str, Any]:
    """Two rounds at 16 streams, in which a way's every figure is the one that is given."""
    given = {
        THIS.name: this,
        OPENAI.name: 3.0,
        BARE.name: 4.0,
        ASYNC_LLM.name: async_llm,
        GENERATE.name: generate,
    }
    figures = {
        way: dict.fromkeys([*FIGURES, *processes.CPU], value) for way, value in given.items()
    }
    return {
        "loads": [{"requests": 64, "new_tokens": 32, "streams": 16}],
        "generate": [{"requests": 16, "new_tokens": 8, "streams": 16}],
        "rounds": [{"16": figures}, {"16": figures}],
        "held": [{"this Truss": 0.25, ASYNC_LLM.name: 0.0, GENERATE.name: 0.0}] * 2,
    }


def test_a_goal_is_met_or_missed_by_the_ratio_within_a_round() -> None:
    rows = older.goal_table(made_up(60.0, 50.0, 2.0)["rounds"])[2:]
    shown = [row.split(" | ")[-2:] for row in rows]
    assert shown == [
        ["1.20 (1.20 to 1.20)", "met |"],  # tokens/s, to AsyncLLM
        ["1.20 (1.20 to 1.20)", "**missed** |"],  # TTFT, which is to be lower
        ["30.00 (30.00 to 30.00)", "met |"],  # tokens/s, to generate
    ]


def test_a_goal_of_every_number_of_streams_that_was_asked_for_stands_in_the_plan() -> None:
    streams = {load.streams for load in FULL.loads}
    assert streams == {1, 4, 16, 32, 64}
    assert all(set(goal.streams) <= streams for goal in GOALS)


def test_the_page_shows_every_way_what_is_missed_and_what_was_held() -> None:
    lines = older.section(made_up(40.0, 50.0, 2.0))
    assert lines[0].startswith("## ")
    page = "\n".join(lines)
    assert all(f"| {way.name} |" in page for way in WAYS)
    assert "**missed**" in page
    assert "0.50 s this Truss" in page


def test_the_plot_has_a_line_for_each_way() -> None:
    (plot,) = older.plots(made_up(1.0, 1.0, 1.0)).values()
    lines = [list(panel.lines) for panel in plot.panels if isinstance(panel, Panel)]
    assert lines == [[way.name for way in WAYS]] * 2

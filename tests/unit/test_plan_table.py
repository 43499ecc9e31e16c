import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from deploy import cards, fit, gpus
from deploy.paths import ROOT
from deploy.plan import short
from scripts import plan

CARDS = cards.load_all()
GPUS = gpus.load_all()


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, **environment: str) -> Done:
    """The program in this process, with this environment and its output in a file."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = plan.main(arguments)
        except SystemExit as end:  # what argparse refuses
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def test_a_process_of_its_own_has_the_same_output_and_exit_code() -> None:
    for words in (["--model", "mistral-7b"], ["--model", "mistral-7b", "--context", "200000"]):
        command = [sys.executable, "-m", "scripts.plan", *words]
        variables = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
        assert Done(done.returncode, done.stdout, done.stderr) == run(*words)


def test_the_table_has_every_model_gpu_and_precision() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    for word in [gpu.name for gpu in GPUS] + ["bf16", "fp16", "fp8", "int8", "int4"]:
        assert word in done.stdout
    for card in CARDS:
        assert card.title in done.stdout
    assert "vLLM's image has no kernels for V100" in done.stdout


@pytest.mark.parametrize("columns", ["48", "80", "200"])
@pytest.mark.parametrize(
    "words",
    [[], ["--model", "mistral-7b", "--weights", "hf://a/b", "--quantized", "w4a16"]],
    ids=["cards", "own weights"],
)
def test_the_table_stays_readable_in_a_pipe_and_in_a_narrow_terminal(
    columns: str, words: list[str]
) -> None:
    done = run(*words, COLUMNS=columns)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout  # no figure is cut off
    figures = 5 if columns == "48" else 8
    rows = [line.split() for line in done.stdout.splitlines() if line[:7] in (" 2×A100", " 1×L40S")]
    assert rows
    assert all(len(row) == figures for row in rows)


def test_the_legend_comes_first_and_the_default_is_marked() -> None:
    legend, *sections = run(COLUMNS="500").stdout.strip().split("\n\n")
    assert legend.startswith("*: the card's default. †: not on Baseten's page of instances;")
    for card, section in zip(CARDS, sections, strict=True):
        usual = fit.choose(card)
        where, precision = f"{usual.count}×{usual.gpu.name}", usual.precision.name
        heading, *rows = section.splitlines()
        assert heading.startswith(card.title)
        assert heading.endswith(f", by default on {where} {precision}")
        found = [row.split()[:2] for row in rows]
        assert [where, precision] not in found
        marked = [words for words in found if words[0].endswith("*")]
        assert marked == [[f"{where}*", precision]]
        unlisted = {gpu.name for gpu in GPUS if not gpu.listed and gpu.name != "V100"}
        assert {row.split()[0][2:-1] for row in rows if "†" in row} == unlisted


def test_another_number_of_gpus_than_was_asked_for_is_not_shown() -> None:
    lines = run("--model", "mixtral-8x22b", "--gpu", "H100:4", COLUMNS="500").stdout.splitlines()
    assert [line for line in lines if "8×H100" in line and "by default on" not in line] == []


def test_a_gpu_that_baseten_does_not_list_is_said_of_a_single_choice_too() -> None:
    words = ["--model", "mistral-7b", "--precision", "fp8", "--gpu"]
    assert "not on Baseten's page" in run(*words, "B300").stdout
    assert "not on Baseten's page" not in run(*words, "B200").stdout


def test_a_reason_that_holds_on_every_gpu_is_said_once() -> None:
    said = run("--context", "100000", COLUMNS="500").stdout
    reason = "  on any GPU, bf16, fp16, fp8, int8, int4: Mistral 7B has a context of 32768 tokens"
    assert said.count(reason) == said.count("Mistral 7B has a context") == 1


@pytest.mark.parametrize("words", [["plan"], ["plan", "MODEL=mistral-7b", "--json"], ["help"]])
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    command = [
        sys.executable,
        "-m",
        f"scripts.{words[0]}" if words != ["help"] else "scripts.command",
    ]
    process = subprocess.Popen(
        [*command, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate()
    assert (process.returncode, told) == (0, b"")


def test_no_color_is_respected() -> None:
    coloured = run("--gpu", "T4", FORCE_COLOR="1", TERM="xterm-256color")
    plain = run("--gpu", "T4", FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    assert "\x1b[90m" in coloured.stdout  # what cannot run is grey
    assert "\x1b[90m" not in plain.stdout


def test_programs_get_json() -> None:
    found: list[dict[str, Any]] = json.loads(run("--json").stdout)
    assert len(found) == len(CARDS) * len(GPUS) * 5
    (one,) = [
        entry
        for entry in found
        if (entry["model"], entry["gpu"], entry["precision"]) == ("mixtral-8x7b", "A100", "bf16")
    ]
    assert one["fits"] is True
    assert one["tensor_parallel_size"] == 2
    assert one["accelerator"] == "A100:2"
    assert one["parameters"] == 46_702_792_704
    assert one["kv_bytes_per_token"] == 131072
    assert round(one["weights_gib"]) == 87
    assert one["reason"] is one["advice"] is None
    assert one["verdict"].startswith("Mixtral 8x7B in bf16 fits on 2×A100")


def test_json_has_the_same_keys_for_what_cannot_run() -> None:
    found: list[dict[str, Any]] = json.loads(run("--json").stdout)
    keys = list(found[0])
    assert all(list(entry) == keys for entry in found)
    for entry in found:
        if entry["fits"]:
            assert [key for key in keys if entry[key] is None] in (
                ["reason", "advice"],
                ["reason", "advice", "quantization"],
            )
        else:
            assert entry["verdict"] == f"{entry['reason']}. {entry['advice']}"
            assert entry["accelerator"] == f"{entry['gpu']}:{entry['count']}"
            assert entry["tensor_parallel_size"] == entry["count"]
            assert min(entry["weights_gib"], entry["beside_gib_estimate"], entry["memory_gib"]) > 0
            assert entry["max_model_len"] is None


def test_the_weights_of_a_repo_that_nobody_named_have_no_size() -> None:
    done = run("--json", "--model", "mistral-7b", "--gpu", "A100", "--precision", "awq")
    assert json.loads(done.stdout)[0]["weights_gib"] is None


def test_a_context_no_model_has_is_said_once_a_model_and_nothing_else() -> None:
    alone = run("--model", "mistral-7b", "--context", "200000")
    reason = "Mistral 7B has a context of 32768 tokens, not 200000. Use CONTEXT=32768"
    assert (alone.returncode, alone.stderr) == (2, f"make plan: {reason}\n")
    lines = run("--context", "200000").stderr.splitlines()
    assert lines == [
        f"make plan: {name} has a context of {most} tokens, not 200000. Use CONTEXT={most}"
        for name, most in dict.fromkeys((short(card), card.context.length) for card in CARDS)
    ]


def test_an_impossible_choice_has_exit_code_2_and_a_sentence() -> None:
    words = ["--model", "mixtral-8x7b", "--gpu", "A100:1", "--precision", "bf16"]
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().endswith("1×A100 has 80 GiB. Use 2×A100, or PRECISION=fp8")
    as_json = run(*words, "--json")
    assert as_json.returncode == 2
    (entry,) = json.loads(as_json.stdout)
    assert (entry["fits"], entry["count"]) == (False, 1)
    assert entry["advice"] == "Use 2×A100, or PRECISION=fp8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "llama"], "no model 'llama'"),
        (["--gpu", "k80"], "GPU='k80' is not known; use one of T4"),
        (["--precision", "fp32"], "PRECISION='fp32' is not known; use one of bf16"),
        (["--context", "-1"], "CONTEXT='-1' is not a number of tokens"),
        (["--context", "32k"], "CONTEXT='32k' is not a number of tokens"),
    ],
)
def test_what_is_not_known_is_an_error_with_what_is(arguments: list[str], message: str) -> None:
    done = run(*arguments, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1

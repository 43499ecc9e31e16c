"""The list of vLLM's flags and variables, and what is made of it, compared with vLLM's own."""

import re
from typing import Any

import pytest

from deploy import cards, environment, values, vllm_args
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options
from deploy.paths import ROOT
from deploy.start_command import serve_arguments, start_command
from scripts.vllm_flags import tables


def test_the_lists_are_this_vllm_s() -> None:
    for name, text in tables().items():
        assert (vllm_args.FLAGS.parent / name).read_text() == text, "run: make vllm_flags"


@pytest.fixture(scope="module")
def parser() -> Any:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("--kv-cache-dtype fp8", "kv_cache_dtype", "fp8"),
        ("--max_num_batched_tokens=2048", "max_num_batched_tokens", 2048),
        ("--enforce-eager", "enforce_eager", True),
        ("--max-num-batched-tokens 16k", "max_num_batched_tokens", 16000),
        ("--safetensors-load-strategy prefetch", "safetensors_load_strategy", "prefetch"),
        (
            """--speculative-config '{"method": "ngram", "num_speculative_tokens": 4}'""",
            "speculative_config",
            {"method": "ngram", "num_speculative_tokens": 4},
        ),
        (
            "--speculative-config.method ngram --speculative-config.num_speculative_tokens 4",
            "speculative_config",
            {"method": "ngram", "num_speculative_tokens": 4},
        ),
        (
            """--hf-overrides '{"x": "it'"'"'s 50% $HOME"}'""",
            "hf_overrides",
            {"x": "it's 50% $HOME"},
        ),
    ],
)
def test_vllm_reads_what_was_given(parser: Any, text: str, name: str, value: object) -> None:
    command = start_command(render(cards.load("mistral-7b"), Options(vllm_args=text)))
    assert getattr(parser.parse_args(serve_arguments(command)), name) == value


def recipes() -> list[str]:
    """The flags of the recipes in docs/models.md."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.split("<!-- recipes:")[1].split("\n\n")[0]
    return re.findall(r"\| `(--[^`]*)` \|$", table, re.MULTILINE)


@pytest.mark.parametrize("model", cards.names())
def test_every_recipe_of_the_documentation_renders_and_is_accepted(parser: Any, model: str) -> None:
    assert len(recipes()) >= 5
    for text in recipes():
        words = serve_arguments(start_command(render(cards.load(model), Options(vllm_args=text))))
        assert parser.parse_args(words)
        for flag in re.findall(r"--[\w-]+", text):
            assert any(word.split(".")[0] == flag for word in words)


def test_vllm_reads_a_variable_s_value_where_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    def theirs(name: str, value: str) -> bool:
        monkeypatch.setenv(name, value)
        try:
            envs.environment_variables[name]()
        except ValueError:
            return False
        finally:
            monkeypatch.delenv(name)
        return True

    def ours(name: str, value: str) -> bool:
        try:
            values.check_value(name, value, environment.variables()[name], "ENV")
        except UsageError:
            return False
        return True

    for name, row in environment.variables().items():
        choices = row.get("choices", [])
        for value in [*choices, *([",".join(choices)] if row.get("list") else [])]:
            assert ours(name, value), f"{name}={value}"
            assert theirs(name, value), f"{name}={value}"
        for value in ["3", "-1", "0.5", "abc", "", "{}", "{", *(one.upper() for one in choices)]:
            # vLLM reads words that then do not hold: of a yes or no any other is no, torch ignores
            # VLLM_FLOAT32_MATMUL_PRECISION=HIGH, and 3 is JSON too
            meant = ["{}"] if row.get("kind") == "object" else choices
            holds = value in meant or not meant or row.get("list", False)
            assert ours(name, value) == (theirs(name, value) and holds), f"{name}={value}"


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("SchedulerConfig", {"max_num_batched_tokens": 80, "max_num_seqs": 81}),
        ("SchedulerConfig", {"max_num_active_seqs": 82, "max_num_seqs": 81}),
        ("SchedulerConfig", {"long_prefill_token_threshold": 32769}),
        (
            "SchedulerConfig",
            {"enable_chunked_prefill": False, "max_num_batched_tokens": 16000, "max_num_seqs": 81},
        ),
        ("LoRAConfig", {"max_loras": 2, "max_cpu_loras": 1}),
        ("ParallelConfig", {"numa_bind_nodes": [0]}),
        ("ParallelConfig", {"numa_bind_cpus": ["0"]}),
        ("ObservabilityConfig", {"collect_detailed_traces": ["all"]}),
    ],
)
def test_vllm_refuses_the_pairs_that_we_refuse(section: str, fields: dict[str, Any]) -> None:
    """That --enable-eplb needs experts on several GPUs it says on a GPU alone."""
    from vllm import config

    if section == "SchedulerConfig":
        fields = {"max_model_len": 32768, "is_encoder_decoder": False, **fields}
    with pytest.raises(ValueError, match=r"must be|cannot be|is smaller|require"):
        getattr(config, section)(**fields)

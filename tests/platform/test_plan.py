"""What is planned against others' code: vLLM's and Truss's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import cards, fit, gpus, plan
from deploy.cards import Card
from deploy.config import render, write
from deploy.fit import PlanError
from deploy.gpus import Gpu
from deploy.memory import GIB
from deploy.options import SOURCES, Options, Source
from deploy.precisions import PRECISIONS, Precision
from deploy.start_command import serve_arguments, start_command
from tests.support.cards import with_quantized
from tests.support.user import User


def test_truss_s_accelerators_are_all_there() -> None:
    from truss.base.truss_config import Accelerator

    # a name with an underscore is not one for users
    offered = {one.value for one in Accelerator if not one.name.startswith("_")}
    assert {gpu.name for gpu in gpus.load_all()} == offered


def test_the_image_and_the_least_capabilities_are_vllm_s() -> None:
    from vllm.config.quantization import ONLINE_QUANT_SHORTHAND_NAMES
    from vllm.model_executor.layers.quantization import get_quantization_config

    assert PRECISIONS["fp8"].quantization in ONLINE_QUANT_SHORTHAND_NAMES
    for name in ("fp8", "int8", "int4"):
        precision = PRECISIONS[name]
        least = get_quantization_config(precision.quantization).get_min_capability()
        assert precision.capability >= least / 10
    assert PRECISIONS["awq"].capability >= get_quantization_config("awq").get_min_capability() / 10


def test_humming_s_variable_is_one_that_vllm_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    for name in ("int8", "int4"):
        for variable, value in PRECISIONS[name].environment.items():
            monkeypatch.setenv(variable, value)
            assert getattr(envs, variable) == json.loads(value)


@pytest.fixture(scope="module")
def parser() -> Any:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


@given(
    st.sampled_from(cards.load_all()),
    st.sampled_from(gpus.load_all()),
    st.sampled_from([one for one in PRECISIONS.values() if not one.repo]),
    st.one_of(st.none(), st.integers(256, 128000)),
    st.sampled_from(SOURCES),
)
def test_what_the_plan_accepts_renders_and_is_accepted(
    parser: Any,
    tmp_path_factory: pytest.TempPathFactory,
    card: Card,
    gpu: Gpu,
    precision: Precision,
    context: int | None,
    source: Source,
) -> None:
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    choices = Options(source, gpu=gpu.name, precision=precision.name, context=context)
    try:
        chosen = fit.fit(card, gpu, None, precision, context)
    except PlanError as refusal:
        with pytest.raises(PlanError, match=re.escape(str(refusal))):
            render(card, choices)
        return
    text = render(card, choices)
    config = tmp_path_factory.mktemp("truss") / "config.yaml"
    write(text, config)
    parsed = parser.parse_args(serve_arguments(start_command(text)))
    validate_parsed_serve_args(parsed)
    assert parsed.max_model_len == chosen.context
    assert parsed.max_num_seqs == chosen.max_num_seqs
    assert parsed.tensor_parallel_size == chosen.count
    assert parsed.gpu_memory_utilization == chosen.utilization
    assert parsed.quantization == chosen.quantization
    assert parsed.dtype == chosen.dtype
    assert accelerator_of(config) == (gpu.name, chosen.count)


@pytest.mark.parametrize("precision", ["awq", "gptq"])
def test_a_card_s_quantized_repo_is_accepted_too(parser: Any, precision: str) -> None:
    card = with_quantized("mixtral-8x7b", precision=precision)
    text = render(card, Options(gpu="L40S", precision=precision))
    parsed = parser.parse_args(serve_arguments(start_command(text)))
    assert (parsed.config_format, parsed.load_format) == ("hf", "safetensors")
    assert parsed.tensor_parallel_size == 1


@pytest.mark.parametrize("gpu", gpus.load_all(), ids=lambda gpu: gpu.name)
def test_a_step_has_as_many_tokens_as_vllm_gives_it_there(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu
) -> None:
    from vllm.engine import arg_utils
    from vllm.usage.usage_lib import UsageContext

    here = arg_utils.current_platform
    monkeypatch.setattr(here, "get_device_total_memory", lambda: int(gpu.usable * GIB))
    monkeypatch.setattr(here, "get_device_name", lambda: f"NVIDIA {gpu.name}")
    monkeypatch.setattr(here, "is_cpu", lambda: False)
    tokens, sequences = arg_utils.EngineArgs.get_batch_defaults(1)
    assert tokens[UsageContext.OPENAI_API_SERVER] == gpu.batched_tokens
    assert sequences[UsageContext.OPENAI_API_SERVER] >= plan.MOST_SEQUENCES


def test_make_takes_hardware_from_its_command_line_alone(user: User) -> None:
    config = user.checkout / "config.yaml"
    done = user.make("config", "MODEL=pixtral-12b", "GPU=L4", "PRECISION=4-bit", "CONTEXT=16384")
    assert done.returncode == 0, done.stderr
    choices = Options(gpu="L4", precision="int4", context=16384)
    written = config.read_text()
    assert written == render(cards.load("pixtral-12b"), choices)
    assert "make config MODEL=pixtral-12b GPU=L4:1 PRECISION=int4 CONTEXT=16384" in written
    # as a shell might have them set for something else
    done = user.run("sh", "-c", "GPU=V100 PRECISION=x CONTEXT=1 make config")
    assert done.returncode == 0, done.stderr
    assert config.read_text() == render(cards.load("mistral-7b"), Options())


def test_make_refuses_what_cannot_run_and_leaves_the_config(user: User) -> None:
    config = user.checkout / "config.yaml"
    before = config.read_text()
    choice = ["MODEL=mixtral-8x7b", "GPU=A100:1", "PRECISION=bf16"]
    for target in ("config", "push", "plan"):
        done = user.make(target, *choice)
        assert done.returncode == 2
        reason = "1×A100 has 80 GiB. Use 2×A100, or PRECISION=fp8"
        assert done.stderr.splitlines()[0].endswith(reason)
    assert config.read_text() == before
    done = user.make("plan", *choice[:2])
    assert done.returncode == 0
    assert "fp8" in done.stdout


def accelerator_of(config: Path) -> tuple[str, int]:
    from truss.base.truss_config import TrussConfig

    resources = TrussConfig.from_yaml(config).resources
    return resources.accelerator.accelerator.value, resources.accelerator.count

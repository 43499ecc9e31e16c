import re
from typing import Any

import pytest
import yaml
from predict.images.urls import read_policy

from deploy import cards, environment, vllm_args
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options


def test_variables_are_words_of_a_shell() -> None:
    assert environment.parse("VLLM_LOGGING_LEVEL=WARNING") == {"VLLM_LOGGING_LEVEL": "WARNING"}
    text = "A=1 B='two words' C='x=y' PREDICT_LIMIT_TOKEN_IDS=7 D="
    assert environment.parse(text) == {
        "A": "1",
        "B": "two words",
        "C": "x=y",
        "PREDICT_LIMIT_TOKEN_IDS": "7",
        "D": "",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "has 'A', which is not NAME=VALUE"),
        ("=1", "'', which is not the name of a variable"),
        ("a-b=1", "'a-b', which is not the name"),
        ("A=1 A=2", "has A twice"),
        ("A='1", "No closing quotation"),
        ("A='1\n2'", "has a line break"),
        ("HF_TOKEN=x", "looks like a secret"),
        ("AWS_SECRET_ACCESS_KEY=x", "looks like a secret"),
        ("VLLM_API_KEY=x", "looks like a secret"),
        ("PYTHONPATH=/x", "the middleware is found by it"),
        ("VLLM_LOGGING_LEVEL=DEBUG", "DEBUG logs what requests say: to debug, set it under"),
        ("VLLM_PLUGINS=", "loaded as a plugin"),
        ("PREDICT_LIMIT_BOY_BYTES=3", "no setting .*; did you mean PREDICT_LIMIT_BODY_BYTES\\?"),
        ("PREDICT_X=3", "no setting of the middleware; docs/operations.md#limits has them"),
        ("ALLOWED_IMAGE_X=3", "no setting of the middleware; docs/operations.md#images has them"),
        ("ALLOWED_IMAGE_ADRESSES=10.1.2.3", "did you mean ALLOWED_IMAGE_ADDRESSES"),
        (
            "ALLOWED_IMAGE_PORTS=443,http",
            "ALLOWED_IMAGE_PORTS takes ports, 1 to 65535, .*'443,http'",
        ),
        ("ALLOWED_IMAGE_PORTS=65536", "ALLOWED_IMAGE_PORTS takes ports"),
        ("ALLOWED_IMAGE_ADDRESSES=localhost", "takes addresses as 10.1.2.3, .* got 'localhost'"),
        ("ALLOWED_IMAGE_ADDRESSES=::1", "ALLOWED_IMAGE_ADDRESSES takes addresses"),
        ("ALLOWED_IMAGE_ADDRESSES=10.1.2.3/8", "ALLOWED_IMAGE_ADDRESSES takes addresses"),
        ("ALLOWED_IMAGE_ADDRESSES=127.0.0.1:99999", "ALLOWED_IMAGE_ADDRESSES takes addresses"),
        ("PREDICT_LIMIT_TOOLS=-1", "PREDICT_LIMIT_TOOLS is at least 0, got '-1'"),
        ("PREDICT_LIMIT_STOP_TOKENS=121", "PREDICT_LIMIT_STOP_TOKENS is at most 120, got '121'"),
        ("PREDICT_LIMIT_TOKEN_IDS=", "PREDICT_LIMIT_TOKEN_IDS takes an integer, got ''"),
        ("PREDICT_LIMIT_BAD_WORDS_BYTES=9999", "is at most 3968, got '9999'"),
        ("PREDICT_LIMIT_BAD_WORDS=129", "PREDICT_LIMIT_BAD_WORDS is at most 128, got '129'"),
        ("VLLM_MAX_NUM_BAD_WORDS=10", "it follows from bad_words"),
        ("VLLM_MAX_BAD_WORDS_TOTAL_TOKENS=10", "it follows from bad_words_bytes"),
        ("PREDICT_STALL_SECONDS=-1", "PREDICT_STALL_SECONDS is at least 0"),
        ("VLLM_ATTENTION_BACKEND=X", "no variable of vLLM's; use VLLM_ARGS='--attention-backend"),
        ("VLLM_FLASH_ATTN_VERSION=3", "use VLLM_ARGS='--attention-config.flash_attn_version"),
        ("VLLM_USE_V1=1", "it has no other engine; leave it out"),
        (
            "VLLM_TORCH_PROFILER_DIR=x",
            "of vLLM's; templates/vllm_variables.yaml has them",
        ),
        ("VLLM_FOO=1", "of vLLM's; templates/vllm_variables.yaml has them"),
        ("VLLM_IMAGE_FETCH_TIMEOUT=abc", "VLLM_IMAGE_FETCH_TIMEOUT takes an integer, got 'abc'"),
        ("VLLM_IMAGE_FETCH_TIMEOUT=", "VLLM_IMAGE_FETCH_TIMEOUT takes an integer, got ''"),
        ("VLLM_MEDIA_CACHE_TTL_HOURS=soon", "takes a number, got 'soon'"),
        ("VLLM_USE_DEEP_GEMM=true", "VLLM_USE_DEEP_GEMM is one of 0, 1, got 'true'"),
        ("VLLM_USE_SIMPLE_KV_OFFLOAD=true", "is one of 0, 1, got 'true'"),
        ("VLLM_HUMMING_INPUT_QUANT_CONFIG=abc", "takes a JSON object, got 'abc'"),
        ("VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS=container,abc", "is one of container, code_interp"),
        ("VLLM_WORKER_MULTIPROC_METHOD=thread", "is one of fork, spawn, got 'thread'"),
        ("VLLM_IMAGE_FETCH_TIMEOT=5", "no variable of vLLM's; did you mean VLLM_IMAGE_FETCH_TIME"),
        ("PREDICT_LIMIT_TOOLS=abc", "PREDICT_LIMIT_TOOLS takes an integer, got 'abc'"),
        ("PREDICT_TEMPERATURE=warm", "PREDICT_TEMPERATURE takes a number, got 'warm'"),
        ("ALLOWED_IMAGE_HOSTS=a.example", "cannot be given: use IMAGE_HOSTS="),
        ("VLLM_USE_RUST_FRONTEND=1", "server in Rust, in which this middleware does not run"),
        ("PREDICT_TOKENIZER=v9", "it follows from the tokenizer's file"),
        ("PREDICT_MOST_REQUESTS=9999", "cannot be given: packages/start/prepare.sh sets it"),
        ("HF_HUB_OFFLINE=0", "cannot be given: use SOURCE="),
        ("A=1,B=2", "A would be '1,B=2'; is B another variable\\?"),
    ],
)
def test_what_cannot_be_a_variable_of_the_container_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        environment.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "VLLM_IMAGE_FETCH_TIMEOUT=30",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0",
        "VLLM_MEDIA_CACHE_TTL_HOURS=0.5",
        "VLLM_LOG_STATS_INTERVAL=60.",
        "MY_VLLM_SETTING=1 vllm_image_fetch_timeout=abc",
        "VLLM_MEDIA_CACHE=",
        "VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS=container,code_interpreter",
        "PREDICT_LIMIT_TOOLS=",
        "NCCL_DEBUG=INFO MAX_JOBS=many",
        "PREDICT_TOP_K=-1 PREDICT_LIMIT_TOOLS=0",
        "ALLOWED_IMAGE_PORTS=8080 ALLOWED_IMAGE_ADDRESSES=10.1.2.3",
        "ALLOWED_IMAGE_ADDRESSES='127.0.0.1:8123, 10.1.0.0/16,[fd12::]:81,[::/0]'",
        "VLLM_LOGGING_LEVEL=warning",
    ],
)
def test_what_vllm_and_the_middleware_can_read_is_taken(text: str) -> None:
    assert environment.parse(text)


def variables(**options: Any) -> dict[str, str]:
    """What config.yaml sets for a model with images."""
    text = render(cards.load("pixtral-12b"), Options(**options))
    found: dict[str, str] = yaml.safe_load(text)["environment_variables"]
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"image_hosts": "a.example"},
        {"source": "hub"},
        {"gpu": "H100", "precision": "int4"},
        {"adapters": "legal=hf://acme/legal"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_a_choice_sets_is_the_choice_s_alone(options: dict[str, Any]) -> None:
    changed = variables().keys() ^ variables(**options).keys()
    assert changed
    for name in changed:
        with pytest.raises(UsageError, match=rf"ENV: {name} cannot be given: use [A-Z_]+="):
            environment.check({name: "1"})


@pytest.mark.parametrize("part", ["VLLM_DP_", "RUST_FRONTEND", "LORA_RESOLVER"])
def test_all_of_vllm_s_variables_of_a_refused_kind_are_refused(part: str) -> None:
    found = {name for name in environment.variables() if part in name}
    assert found
    assert found <= environment.REFUSED.keys()


def test_what_takes_a_removed_variable_s_place_is_there() -> None:
    assert not environment.REMOVED.keys() & environment.variables().keys()
    for advice in environment.REMOVED.values():
        if found := re.search(r"VLLM_ARGS='(\S+)", advice):
            vllm_args.check([found[1], "1"])


def test_one_engine_has_the_reason_that_its_flags_have() -> None:
    assert vllm_args.refused()["--data-parallel-size"] == environment.ENGINES


@pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
def test_vllm_s_variables_in_config_yaml_are_ones_that_vllm_knows(card: cards.Card) -> None:
    set_here = yaml.safe_load(render(card, Options()))["environment_variables"]
    known = environment.variables()
    assert {name for name in set_here if name.startswith("VLLM_")} <= known.keys()
    refused = {name for name in environment.REFUSED if name.startswith("VLLM_")}
    assert refused <= known.keys()


@pytest.mark.parametrize("name", ["ALLOWED_IMAGE_ADDRESSES", "ALLOWED_IMAGE_PORTS"])
@pytest.mark.parametrize(
    "value",
    [
        "10.1.2.3",
        "10.1.0.0/16, [fd12::]:81",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "[fd12::1",
        "::1",
        "443, 8080",
        "0",
        "65536",
        "+1",
        "٤٤٣",
        "http",
        "10.1.2.3/8",
        "a:1",
        ":80",
        "[]:80",
    ],
)
def test_what_the_container_could_not_read_is_what_is_refused(name: str, value: str) -> None:
    refused = unread = False
    try:
        environment.check({name: value})
    except UsageError:
        refused = True
    try:
        read_policy({name: value})
    except ValueError:
        unread = True
    assert refused == unread

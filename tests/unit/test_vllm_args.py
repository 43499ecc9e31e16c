import pytest

from deploy import cards, vllm_args
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options


@pytest.mark.parametrize(
    "text",
    [
        "",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--kv-cache-dtype fp8",
        "--kv_cache_dtype=fp8",
        "--max-num-batched-tokens 2048",
        "--max-num-batched-tokens 16k",
        "--max-num-batched-tokens 0.5k",
        "--cpu-offload-gb 1e+1",
        "--speculative-config.method ngram --speculative-config.num_speculative_tokens 4",
        """--speculative-config '{"method": "ngram"}'""",
        "-O3",
        "--cudagraph-capture-sizes 1 2 4",
        "--seed -1",
    ],
)
def test_flags_of_vllm_are_taken(text: str) -> None:
    vllm_args.check(vllm_args.words(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--no-such-flag 1", "--no-such-flag is not a flag of `vllm serve`"),
        ("--enforce-eagr", "did you mean --enforce-eager?"),
        ("--enforce-eager yes", "--enforce-eager takes no value, got 'yes'"),
        ("--enforce-eager=true", "--enforce-eager takes no value, got 'true'"),
        ("--kv-cache-dtype", "--kv-cache-dtype takes one value, got 'none'"),
        ("--kv-cache-dtype fp8 fp16", "--kv-cache-dtype takes one value, got 'fp8 fp16'"),
        ("--kv-cache-dtype fp99", "--kv-cache-dtype is one of .*, got 'fp99'"),
        ("--block-size many", "--block-size takes an integer, got 'many'"),
        ("--block-size 0", "--block-size is above 0, got '0'"),
        ("--max-num-batched-tokens lots", "takes an integer, or one such as 16k .*, got 'lots'"),
        ("--max-num-batched-tokens 0k", "--max-num-batched-tokens is at least 1, got '0k'"),
        ("--speculative-config {method:ngram}", "takes JSON, or dotted keys"),
        ("--block-size.x 3", "--block-size takes no dotted keys"),
        ("fp8", "begins with 'fp8', which is not a flag"),
        ("--enforce", "--enforce is not a flag of `vllm serve`; did you mean --enforce-eager?"),
        ("--max-num-batched-token 1", r"did you mean --max-num-batched-tokens\?"),
        (
            "--max-num-batched-tokens many",
            "--max-num-batched-tokens takes an integer, or one such as 16k",
        ),
        ("--block-size 8k", "--block-size takes an integer, got '8k'"),
        ("--enable 1", "--enable is not a flag .*; did you mean --enable-.* or --enable-.*"),
        ("--seed '1", "No closing quotation"),
        ("--served-model-name 'a\nb'", "a line break"),
        ("--chat-template 'a ;b'", "supervisord's configuration"),
        ("--", "-- is not a flag"),
        ("-", "begins with '-', which is not a flag"),
        ("-1", "begins with '-1', which is not a flag"),
        ("-.5", "begins with '-.5', which is not a flag"),
        ("---port 9", "---port is not a flag of `vllm serve`; did you mean --port?"),
        ("--_x 1", "--_x is not a flag"),
        ("--enforce-eager -_x", "-_x is not a flag"),
        ("--served-model-name a ---port 9", "--served-model-name cannot be given"),
        ("--cudagraph-capture-sizes 1 --0", "--0 is not a flag"),
    ],
)
def test_what_is_not_a_flag_with_its_values_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        vllm_args.check(vllm_args.words(text))


@pytest.mark.parametrize(
    "text",
    [
        "--port 9000",
        "--por 9000",
        "--port=9000",
        "--host 0.0.0.0",
        "--middleware a.b",
        "--middle a.b",
        "--served_model_name x",
        "--api-key x",
        "--model x",
        "-tp 2",
        "--tensor-parallel 2",
        "-dp 2",
        "--max-model-len 1k",
        "--no-disable-log-stats",
        "--disable-log-stats",
        "--no-enable-lora",
        "--structured-outputs-config.backend guidance",
        "--config flags.yaml",
        "--enforce-eager --uds /tmp/x",
        "--trust-remote-code",
    ],
)
def test_what_would_break_the_truss_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        vllm_args.check(vllm_args.words(text))
    message = str(refused.value)
    known = "cannot be given: " in message or "is not a flag" in message
    assert known, message
    assert len(message) < 300


def test_every_refused_flag_is_one_of_vllm_s() -> None:
    assert set(vllm_args.refused()) <= set(vllm_args.known())
    assert all(why and not why.endswith(".") for why in vllm_args.refused().values())


# Mistral 7B on its A10G: --max-num-seqs 81, --max-model-len 32768
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "--max-num-batched-tokens 80",
            "--max-num-batched-tokens is 80, and cannot be below --max-num-seqs, which is 81; "
            "in VLLM_ARGS=, or a card's vllm_args, give --max-num-batched-tokens at least 81",
        ),
        (
            "--max_num_batched_tokens=0.05k",
            "--max-num-batched-tokens is 0.05k, and cannot be below",
        ),
        ("--max-num-batched-tokens 81", ""),
        ("--max-num-batched-tokens 16 --max-num-batched-tokens 16k", ""),  # the last one holds
        ("--max-num-active-seqs 82", "is 82; in .*, give --max-num-active-seqs at most 81"),
        ("--max-num-active-seqs 81", ""),
        ("--long-prefill-token-threshold 32769", "--max-model-len is 32768, and cannot be below"),
        ("--no-enable-chunked-prefill --max-num-batched-tokens 16k", "cannot be below --max-model"),
        ("--no_enable_chunked_prefill --max-num-batched-tokens 32768", ""),
        ("--no-enable-chunked-prefill --enable-chunked-prefill --max-num-batched-tokens 16k", ""),
        ("--numa-bind-nodes 0", "--numa-bind-nodes needs --numa-bind; give it too"),
        ("--numa-bind --numa-bind-nodes 0", ""),
        ("--enable-eplb", "--enable-eplb needs --enable-expert-parallel"),
        ("--collect-detailed-traces all", "needs --otlp-traces-endpoint"),
    ],
)
def test_flags_with_which_vllm_would_not_start_are_refused(text: str, message: str) -> None:
    if not message:
        assert render(cards.load("mistral-7b"), Options(vllm_args=text))
        return
    with pytest.raises(UsageError, match=f"^vLLM would not start: .*{message}") as refused:
        render(cards.load("mistral-7b"), Options(vllm_args=text))
    assert len(str(refused.value)) < 300


def test_adapters_need_room_in_the_cpu_s_memory_too() -> None:
    options = Options(adapters="a=hf://acme/a,b=hf://acme/b", vllm_args="--max-cpu-loras 1")
    with pytest.raises(UsageError, match="--max-cpu-loras is 1, and cannot be below --max-loras"):
        render(cards.load("mistral-7b"), options)


def test_every_flag_of_a_pair_is_one_of_vllm_s() -> None:
    pairs = [*vllm_args.ORDERED, *vllm_args.NEEDS.items(), vllm_args.WHOLE_PREFILL]
    assert {flag for pair in pairs for flag in pair} <= vllm_args.known().keys()


def test_of_an_ordered_pair_one_may_be_given() -> None:
    for pair in [*vllm_args.ORDERED, vllm_args.WHOLE_PREFILL]:
        assert len(vllm_args.refused().keys() & set(pair)) == 1

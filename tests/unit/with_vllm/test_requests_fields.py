"""Names of requests: known, mapped, ignored or refused; the tables are vLLM's."""

from typing import Any

import pytest
from predict.errors import RequestError
from predict.legacy.parameters import REFUSED, REMOVED
from predict.requests import fields
from predict.requests.conversations.notes import MOST, Notes, header_value
from predict.requests.fields import KNOWN, LOOKALIKES, MOST_COMPARED, NOT_NULL, nearest, settled

from tests.support.vllm_requests import HI, VLLM

LEAST = {path: least for path, _, least in VLLM}
# Names that other servers, gateways and clients know, and nobody here.
FOREIGN = [
    *("num_ctx", "num_predict", "repeat_penalty", "repeat_last_n", "tfs_z", "mirostat", "think"),
    *("keep_alive", "format", "options", "raw", "cache_prompt", "n_predict", "grammar", "models"),
    *("transforms", "route", "provider", "usage", "thinking_budget", "enable_thinking", "mode"),
    *("trace_id", "chat_id", "conversation_id", "tool_ids", "custom_params", "function_calling"),
    *("negative_prompt", "auto_max_new_tokens", "watermark", "api_key", "timeout", "caching"),
    *("num_retries", "mock_response", "top_a", "dry_multiplier", "reasoning_format"),
]


def ignored(path: str, **fields: Any) -> list[str]:
    notes = Notes()
    settled(path, {**LEAST[path], **fields}, notes)
    return list(notes.names)


@pytest.mark.parametrize(("path", "model", "least"), VLLM)
def test_every_name_of_vllm_is_known(path: str, model: Any, least: dict[str, Any]) -> None:
    assert {row.alias or name for name, row in model.model_fields.items()} - KNOWN[path] == set()


@pytest.mark.parametrize(("path", "model", "least"), VLLM)
def test_a_null_is_left_out_where_vllm_takes_none(
    path: str, model: Any, least: dict[str, Any]
) -> None:
    for name in {row.alias or name for name, row in model.model_fields.items()} - least.keys():
        body = {**least, name: None}
        got = settled(path, body, Notes())
        model.model_validate(got)
        assert (got is body) == (name not in NOT_NULL[path] and name != "session_id")


@pytest.mark.parametrize("path", KNOWN)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_nobody_knows_is_ignored_and_named(path: str, name: str) -> None:
    assert ignored(path, **{name: 5}) == [name]
    assert ignored(path, **{name: None}) == []


@pytest.mark.parametrize("path", KNOWN)
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("modle", "model"), ("tempratur", "temperature"), ("max_token", "max_tokens")),
        *(("top-p", "top_p"), ("mesages", "messages"), ("stopp", "stop")),
    ],
)
def test_a_misspelt_name_is_refused_with_the_right_one(path: str, name: str, meant: str) -> None:
    if meant not in KNOWN[path]:
        return
    with pytest.raises(RequestError, match=f"did you mean '{meant}'") as caught:
        ignored(path, **{name: 5})
    assert caught.value.param == name
    assert ignored(path, **{name: None}) == []


def test_only_the_first_unknown_names_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes half a millisecond of everybody's: 20,000 took 10 s."""
    compared: list[str] = []
    monkeypatch.setattr(fields, "nearest", lambda name, _: compared.append(name))
    names = {f"unknown{i}": 5 for i in range(500)}
    for path in KNOWN:
        compared.clear()
        assert ignored(path, **names) == [*names]
        assert compared == [*names][:MOST_COMPARED]
    compared.clear()
    settled("/v1/chat/completions", {"generation_config": names}, Notes())
    assert compared == [*names][:MOST_COMPARED]


def test_a_long_name_is_neither_compared_nor_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(fields, "nearest", lambda name, _: compared.append(name))
    ignored("/v1/completions", **{"a" * 1000: 5})
    settled("/v1/chat/completions", {"generation_config": {"a" * 1000: 5}}, Notes())
    assert compared == ["a" * 100] * 2


def test_legacy_names_are_spelt_right_too() -> None:
    for name, meant in (("max_new_token", "max_new_tokens"), ("maxNewTokens", "max_new_tokens")):
        for body in ({name: 5}, {"generation_config": {name: 5}}):
            with pytest.raises(RequestError, match=f"did you mean '{meant}'"):
                ignored("/v1/chat/completions", **body)
    config = {"max_new_tokens": 5, "num_ctx": 5}
    assert ignored("/v1/chat/completions", generation_config=config) == [
        "generation_config.num_ctx"
    ]


def test_lookalikes_are_those_that_would_be_taken_for_a_misspelling() -> None:
    assert all(nearest(name, path) is None for name in LOOKALIKES for path in KNOWN)


@pytest.mark.parametrize("path", KNOWN)
@pytest.mark.parametrize("name", REFUSED)
def test_fields_of_the_engine_are_refused_unless_they_ask_for_nothing(path: str, name: str) -> None:
    nothing: list[Any] = [None, 0, {}, [], ""]
    for neutral in nothing:
        assert ignored(path, **{name: neutral}) == []
    with pytest.raises(RequestError) as caught:
        ignored(path, **{name: {"a": 1}})
    assert caught.value.param == name
    assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize("path", KNOWN)
def test_what_gateways_send_for_themselves_is_taken_out(path: str) -> None:
    notes = Notes()
    assert settled(path, {**LEAST[path], "session_id": "a"}, notes) == LEAST[path]
    assert list(notes.names) == ["session_id"]


@pytest.mark.parametrize("name", REMOVED)
def test_what_vllm_no_longer_acts_on_is_refused(name: str) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        with pytest.raises(RequestError, match="no effect on vLLM"):
            ignored(path, **{name: "a"})
        assert ignored(path, **{name: None}) == []


def test_mistral_s_names_are_mapped() -> None:
    notes = Notes()
    body = {"messages": HI, "random_seed": 5, "safe_prompt": False, "prompt_mode": "reasoning"}
    got = settled("/v1/chat/completions", body, notes)
    assert got["seed"] == 5
    assert "random_seed" not in got
    assert list(notes.names) == ["prompt_mode"]
    both = settled("/v1/chat/completions", {**body, "seed": 7}, notes)
    assert both["seed"] == 7
    assert list(notes.names) == ["prompt_mode", "random_seed"]


@pytest.mark.parametrize("path", [path for path, names in KNOWN.items() if "seed" not in names])
def test_mistral_s_names_are_named_where_the_route_has_no_such_thing(path: str) -> None:
    assert ignored(path, random_seed=0) == ["random_seed"]
    assert ignored(path, random_seed=None) == []
    assert "seed" not in settled(path, {**LEAST[path], "random_seed": 5}, Notes())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": {"prompt": "hi", "max_tokens": 5}}, "send its entries, 'prompt', 'max_tokens'"),
        ({"inputs": "hi", "parameters": {"max_new_tokens": 5}}, "the entries of 'parameters'"),
        ({"inputs": "hi"}, "send the text as 'prompt'"),
        ({"messages": HI, "extra_body": {"top_k": 5}}, "send 'top_k' there"),
    ],
)
def test_other_platforms_requests_are_told_what_to_send(body: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        settled("/v1/chat/completions", body, Notes())
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background"])
def test_state_that_is_not_kept_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="nothing is stored here"):
        ignored("/v1/responses", **{name: "resp_1"})
    assert ignored("/v1/responses", **{name: None}) == []


def test_the_header_s_value_is_plain_and_bounded() -> None:
    assert header_value(["num_ctx", "messages[1].content"]) == b"num_ctx, messages[1].content"
    assert header_value(["é,\r\n%"]) == b"%C3%A9%2C%0D%0A%25"
    many = header_value(f"name{i}" for i in range(MOST + 5))
    assert many.endswith(b", +5")
    assert len(header_value("x" * 500 for _ in range(1))) == 100


def test_notes_take_little_memory_however_long_a_path_is() -> None:
    notes = Notes()
    notes.add(*(f"{'p' * 30_000}.{i}" for i in range(1000)), "num_ctx")
    assert len(notes.names) == 1001
    assert sum(map(len, notes.names)) < 1000 * 400
    assert header_value(notes.names).startswith(b"p" * 100 + b", ")


@pytest.mark.parametrize(
    ("given", "left"), [("", []), (["", "a"], ["a"]), ([None], []), (["a"], ["a"])]
)
def test_an_empty_stop_string_asks_for_nothing(given: Any, left: list[str]) -> None:
    body = {"messages": [], "stop": given}
    assert settled("/v1/chat/completions", body, Notes())["stop"] == left

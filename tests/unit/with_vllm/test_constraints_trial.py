"""A constraint is refused for what it takes to compile and to follow, as measured."""

import json
import random
import string
import time
from types import SimpleNamespace
from typing import Any

import pytest
from predict.constraints import categories, common, process, trial

from deploy.paths import ROOT

xgrammar = pytest.importorskip("xgrammar")

VOCABULARY = ["</s>", *map(chr, range(32, 127)), "ab", "abc", "true", '{"', '":']


def test_a_slow_mask_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MASK_SECONDS", 0.0)
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    with pytest.raises(trial.TrialError, match="ms for a token"):
        trial.Trial({"tokenizer": info.serialize_json(), "separators": None})


@pytest.mark.parametrize(("times", "keep"), [(1.5, False), (2.5, True)])
def test_a_refusal_that_a_busy_machine_may_have_caused_is_not_for_good(
    times: float, keep: bool
) -> None:
    assert trial.slow(times * trial.MASK_SECONDS, trial.MASK_SECONDS).keep is keep


@pytest.mark.parametrize(
    ("measured", "counts", "times"),
    [
        ([0.05], 0.05, 1),
        ([0.15, 0.06], 0.06, 2),
        ([0.15, 0.18, 0.12], 0.12, 3),
        ([0.3], 0.3, 1),  # clearly too slow
    ],
)
def test_a_mask_that_is_a_little_too_slow_is_measured_again(
    measured: list[float], counts: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    left = iter(measured)

    class Matcher:
        def fill_next_token_bitmask(self, _: Any) -> None:
            clock[0] += next(left)

    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    one = trial.Trial({"tokenizer": info.serialize_json(), "separators": None})
    monkeypatch.setattr(trial, "time", SimpleNamespace(process_time=lambda: clock[0]))
    assert one.seconds(Matcher()) == pytest.approx(counts)
    assert clock[0] == pytest.approx(sum(measured[:times]))


def test_what_schemas_have_in_common_is_compiled_once() -> None:
    chance = random.Random(0)
    words = {"".join(chance.choices(string.ascii_letters, k=8)) for _ in range(5000)}
    info = xgrammar.TokenizerInfo([*VOCABULARY, *words], stop_token_ids=[0])
    setup = {"tokenizer": info.serialize_json(), "separators": None}
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 100}}}

    def seconds(one: trial.Trial) -> float:
        start = time.process_time()
        one("json_schema", json.dumps(schema), lambda: None)
        return time.process_time() - start

    plain, prepared = trial.Trial(setup), trial.Trial(setup)
    for common_one in common.schemas():
        prepared.prepare(common_one)
    assert seconds(prepared) < seconds(plain) / 3


def test_unicode_is_looked_through_before_anybody_asks() -> None:
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    one = trial.Trial({"tokenizer": info.serialize_json(), "separators": None})
    categories.table.cache_clear()
    one.prepare({})
    assert categories.table.cache_info().currsize == 1


def test_the_figures_in_the_documents_are_these() -> None:
    told = " ".join((ROOT / "docs" / "requests.md").read_text().split())
    for figure in (
        f"{trial.READ_SECONDS:g} s to read, {trial.COMPILE_SECONDS:g} s to compile or 1 GiB",
        f"over {trial.MASK_SECONDS * 1000:g} ms for a token",
        f"over {trial.MEAN_SECONDS * 1000:g} ms for a token on average",
        f"each for {process.SLICE_SECONDS:g} s before",
    ):
        assert figure in told, figure


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ({"triggers": ["<"], "structures": [{"begin": "<a>", "schema": {}, "end": "<"}]}, None),
        ({"triggers": ["<"], "structures": [{"begin": "<a>"}]}, "begin, schema and end"),
        ({"structures": []}, "begin, schema and end"),
        ({"triggers": ["<"], "structures": 5}, "begin, schema and end"),
    ],
)
def test_the_earlier_form_of_structural_tags_is_tried_too(
    tag: dict[str, Any], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    tried = trial.Trial({"tokenizer": info.serialize_json(), "separators": None})
    if said is not None:
        with pytest.raises(trial.TrialError, match=said):
            tried("structural_tag", json.dumps(tag), lambda: None)
        return
    tried("structural_tag", json.dumps(tag), lambda: None)
    monkeypatch.setattr(trial, "READ_SECONDS", 0.0)
    with pytest.raises(trial.TrialError, match="ms to read; at most 0 ms"):
        tried("structural_tag", json.dumps(tag), lambda: None)

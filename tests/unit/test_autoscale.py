import re
from argparse import Namespace
from pathlib import Path

import httpx
import pytest

from deploy import baseten, cards, fit
from deploy.baseten import BasetenError
from deploy.config import render
from deploy.errors import UsageError
from deploy.options import Options
from deploy.weights import applied
from scripts import autoscale


def answer(status: int, body: object = None) -> httpx.Response:
    return httpx.Response(status, json=body)


@pytest.mark.parametrize(
    ("attempt", "response", "seconds"),
    [
        (1, answer(503), 1.0),
        (4, answer(500, {"message": "no"}), 8.0),
        (20, answer(502), 60.0),
        (1, answer(429, {"error": "Rate limit exceeded", "retry_after": 37}), 37.0),
        (1, answer(429, {"retry_after": 1e9}), 60.0),
        (1, answer(429, {"retry_after": "soon"}), 1.0),
        (2, answer(429, []), 2.0),
        (2, httpx.Response(502, text="<html>"), 2.0),
        (1, answer(400), None),
        (1, answer(401), None),
        (1, answer(404), None),
    ],
)
def test_only_a_busy_service_is_asked_again_and_later_each_time(
    attempt: int, response: httpx.Response, seconds: float | None
) -> None:
    assert baseten.seconds_to_wait(attempt, response) == seconds


def test_the_card_s_figures_hold_unless_others_are_given() -> None:
    card = cards.load("mistral-7b")
    figures = card.autoscaling
    expected = {"min_replica": figures.min_replica, "max_replica": figures.max_replica}
    expected |= {"concurrency_target": 20, "target_utilization_percentage": 50}
    assert autoscale.wanted_settings(card, 20, {}) == expected
    got = autoscale.wanted_settings(card, 20, {"max_replica": 3, "min_replica": None})
    assert got == {**expected, "max_replica": 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concurrency_target": 0}, "CONCURRENCY=0: concurrency_target is at least 1"),
        ({"min_replica": -1}, "MIN=-1: min_replica is at least 0"),
        ({"max_replica": 0}, "MAX=0: max_replica is at least 1"),
        ({"min_replica": 3}, "MIN=3 is above the card's max_replica, 1; say MAX= too"),
        ({"min_replica": 3, "max_replica": 2}, "MIN=3 is above MAX=2"),
    ],
)
def test_values_out_of_bounds_are_refused_before_anything_is_sent(
    given: dict[str, int | None], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        autoscale.wanted_settings(cards.load("mistral-7b"), 20, given)


@pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
def test_a_card_is_found_by_the_name_baseten_knows(tmp_path: Path, card: cards.Card) -> None:
    assert autoscale.card_called(card.title, tmp_path / "none") == card


def test_a_title_of_one_s_own_is_found_in_the_config(tmp_path: Path) -> None:
    config, card = tmp_path / "config.yaml", cards.load("mixtral-8x7b")
    config.write_text(render(card, Options(title="Our Mixtral")))
    assert autoscale.card_called("Our Mixtral", config) == card
    assert autoscale.planned_concurrency(card, asked(), config)[1] == "config.yaml"
    with pytest.raises(BasetenError, match="'Their Mixtral', and no card"):
        autoscale.card_called("Their Mixtral", config)


def asked(gpu: str | None = None, precision: str | None = None) -> Namespace:
    return Namespace(gpu=gpu, precision=precision, context=None)


@pytest.mark.parametrize("card", cards.load_all(), ids=lambda card: card.name)
def test_the_target_is_read_in_the_config_of_the_model_that_was_pushed(
    tmp_path: Path, card: cards.Card
) -> None:
    config = tmp_path / "config.yaml"
    usual = fit.choose(card).concurrency_target
    gpu, expected = next(  # hardware that is told from the usual by its target
        (gpu, target)
        for gpu in ("H200", "H200:2", "H100:2")
        if (target := fit.choose(card, gpu, "fp8").concurrency_target) != usual
    )
    config.write_text(render(card, Options(gpu=gpu, precision="fp8")))
    assert autoscale.planned_concurrency(card, asked(), config) == (expected, "config.yaml")
    assert usual >= 8
    other = next(other for other in cards.load_all() if other != card)
    assert autoscale.planned_concurrency(other, asked(), config)[1].startswith("the plan for")
    for content in ("", "[", "model_name: 1"):
        config.write_text(content)
        assert autoscale.planned_concurrency(card, asked(), config)[0] == usual
    assert autoscale.planned_concurrency(card, asked(), tmp_path / "none")[0] == usual


def test_hardware_that_is_given_has_its_own_target(tmp_path: Path) -> None:
    card = cards.load("mistral-7b")
    target, where = autoscale.planned_concurrency(card, asked("L4", "int4"), tmp_path / "none")
    assert target == fit.choose(card, "L4", "int4").concurrency_target
    assert where == "the plan for L4:1, int4"


def test_hardware_that_is_given_holds_the_weights_and_adapters_of_the_config(
    tmp_path: Path,
) -> None:
    config, card = tmp_path / "config.yaml", cards.load("mistral-7b")
    own = Options(weights="hf://acme/own", adapters="a=s3://b/a,b=s3://b/b", rank=512)
    config.write_text(render(card, own))
    target, where = autoscale.planned_concurrency(card, asked("L4"), config)
    assert target == fit.choose(applied(card, own), "L4").concurrency_target
    assert target != fit.choose(card, "L4").concurrency_target
    assert where == "the plan for L4:2, fp16"  # one has no room for the adapters


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "llama"], "no model 'llama'"),
        (["--gpu", "nope"], "GPU='nope' is not known"),
        (["--precision", "int3"], "PRECISION='int3' is not known"),
        (["--context", "long"], "CONTEXT='long' is not a number of tokens"),
        (["--model", "mixtral-8x7b", "--gpu", "A100:1", "--precision", "bf16"], "Use 2×A100, or"),
        (["--model", "mistral-7b", "--min-replica", "-1"], "MIN=-1: min_replica is at least 0"),
        (["MIN=-1"], "MIN=-1: min_replica is at least 0"),
        (["MIN=3", "MAX=1"], "MIN=3 is above MAX=1"),
        (["CONCURRENCY=0"], "CONCURRENCY=0: concurrency_target is at least 1"),
    ],
)
def test_an_impossible_choice_is_refused_before_anybody_is_asked(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BASETEN_API_KEY", raising=False)  # the first thing that asking needs
    assert autoscale.main(["MODEL_ID=abc", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_model_of_another_name_needs_its_card_named(tmp_path: Path) -> None:
    with pytest.raises(BasetenError, match=r"'Llama', and no card has that title.*say MODEL="):
        autoscale.card_called("Llama", tmp_path / "none")


def test_a_target_above_what_a_replica_admits_is_warned_of(tmp_path: Path) -> None:
    card, options = cards.load("mistral-7b"), asked()
    options.config = tmp_path / "config.yaml"
    most = fit.choose(card).max_num_seqs + card.serving.queue
    assert autoscale.too_many(card, most, options) == ""
    said = autoscale.too_many(card, most + 1, options)
    assert said.startswith(f"warning: concurrency_target {most + 1} is above the {most} requests")
    options.config.write_text(render(card, Options(gpu="H100")))  # which admits more
    assert autoscale.too_many(card, most + 1, options) == ""

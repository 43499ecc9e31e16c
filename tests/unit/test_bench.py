"""The page of `make bench`, and where the time of a start goes."""

import json
from pathlib import Path

import pytest

from bench import phases, starts, startup
from bench.figures import BenchError
from bench.starts import Start
from scripts import bench, cards
from scripts.cards import ROOT

LOG = [(float(at), f"INFO {phase.ends_with} more") for at, phase in enumerate(phases.PHASES, 1)]


def test_phases_follow_each_other_and_add_up_to_the_whole() -> None:
    noise = [(at - 0.5, "INFO something else") for at, _ in LOG]
    found = phases.phases(sorted([*LOG, *noise]), answered=12.5)
    assert list(found) == [*(phase.name for phase in phases.PHASES), phases.ANSWER]
    assert sum(found.values()) == 12.5
    assert found["weights"] == 1


def test_a_line_that_vllm_no_longer_logs_is_named() -> None:
    without = [(at, line) for at, line in LOG if "Loading weights took" not in line]
    with pytest.raises(BenchError, match=r"'Loading weights took'.*mend bench/phases.py"):
        phases.phases(without, answered=12.5)


def test_the_published_page_is_made_of_the_figures_beside_it() -> None:
    assert bench.PAGE.read_text() == bench.page(bench.PAGE.with_suffix(""))


def test_a_part_without_figures_is_left_out(tmp_path: Path) -> None:
    figures = json.loads((ROOT / "docs" / "benchmarks" / "class.json").read_text())
    (tmp_path / "class.json").write_text(json.dumps(figures))
    page = bench.page(tmp_path)
    assert "## What the class in front of vLLM costs" in page
    assert "## From the start of the container" not in page


def test_ratios_are_within_a_round() -> None:
    rounds = [
        {startup.CONTAINER: 10.0, startup.BARE: 20.0},
        {startup.CONTAINER: 30.0, startup.BARE: 30.0},
        {startup.CONTAINER: 30.0, startup.BARE: 40.0},
    ]
    row = next(line for line in startup.way_table(rounds) if startup.BARE in line)
    assert "| 30.0 (20.0 to 40.0) | 0.75 (0.50 to 1.00) | at most 1.05 |" in row


def test_make_bench_measures_a_part_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--part", "none"])
    assert "startup" in capsys.readouterr().err


def test_each_round_begins_with_another_way() -> None:
    order: list[str] = []

    def way(name: str) -> starts.Way:
        def begin() -> Start:
            order.append(name)
            return Start(1.0, {})

        return begin

    startup.in_turn({name: way(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abcbcacab"


def test_a_clone_without_history_leaves_the_first_version_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starts, "FIRST_VERSION", "0" * 40)
    compared = startup.ways(cards.load("mistral-7b"))
    assert list(compared) == [startup.CONTAINER, startup.COMMAND, startup.BARE]
    assert "git fetch --unshallow" in " ".join(capsys.readouterr().err.split())


def test_a_step_that_is_taken_away_was_there() -> None:
    now = starts.today(cards.load("mistral-7b"))
    less = now.without("/packages/start/modelinfos")
    assert len(less.image.files) < len(now.image.files)
    with pytest.raises(BenchError, match="no file of the image is in /packages/nothing"):
        now.without("/packages/nothing")

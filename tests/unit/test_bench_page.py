"""The page of `make bench`: tables, goals and plots of metrics."""

import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import (
    cpu,
    metrics,
    overhead,
    page,
    plots,
    scaling,
    startup,
    stock,
)
from bench.metrics import Metrics, Spread
from bench.overhead import BARE
from bench.part import Point
from bench.plots import Bars, Panel, Plot
from deploy import cards
from deploy.paths import ROOT
from scripts import bench

SOMEWHERE = {"machine": "m", "versions": "v", "commit": "c", "date": "d"}


def some_metrics(factor: float) -> Metrics:
    names = (*metrics.METRICS, cpu.CLIENT, cpu.NGINX, cpu.API_SERVER, cpu.ENGINE)
    return {name: factor * (10 + place) for place, name in enumerate(names)}


def rounds_of(points: dict[str, Point], slower: float = 1.0) -> list[Any]:
    """Rounds in which every way but bare vLLM is `slower`."""
    done = {
        label: {way.name: some_metrics(1 if way is BARE else slower) for way in point.ways}
        for label, point in points.items()
    }
    return [done] * 3


def results_of(slower: float = 1.0) -> dict[str, dict[str, Any]]:
    """Results as each part's `measure` gives them."""
    body = {"body": "one", "bytes": 9, "goal": "", "ms": vars(Spread(1, 2, 3))}
    starts = [dict.fromkeys(startup.OF_BARE, 10.0) | dict.fromkeys(startup.OF_BARE.values(), 7.0)]
    return {
        "stock": {
            "measured": {
                name: rounds_of(dict(stock.group(cards.load(name), False).points))
                for name in stock.MODELS
            }
        },
        "overhead": {
            "measured": {
                group.name: rounds_of(dict(group.points), slower)
                for group in overhead.groups(None, False)
            },
            "parsing": {"repeats": 3, "rows": [body]},
            "new_tokens": 128,
        },
        "scaling": {
            "measured": {
                group.name: rounds_of(dict(group.points)) for group in scaling.groups(None, False)
            }
        },
        "startup": {"measured": {"mistral-7b": starts * 3}},
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page of every part."""
    folder = tmp_path_factory.mktemp("page")
    for name, results in results_of().items():
        page.write_results(folder, name, {**SOMEWHERE, **results})
    page.write(folder)
    return folder


def test_the_page_answers_its_questions_with_every_part_and_plot(written: Path) -> None:
    text = (written / page.NAME).read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "Is it as fast as stock vLLM?"
    for question in re.findall(r"^\d\. \[(.*?)\]", text, re.MULTILINE):
        assert question in headings
    assert "{" not in text
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    there = {f"{plots.FOLDER}/{file.name}" for file in (written / plots.FOLDER).glob("*.svg")}
    assert len(linked) == len(page.PARTS)
    assert there == set(linked)
    for link in linked:
        assert ElementTree.parse(written / link).getroot().tag.endswith("svg")


def check_size(text: str) -> None:
    """At most 200 lines, and eight rows a table."""
    assert len(text.splitlines()) <= 200
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert tables
    assert max(len(table.splitlines()) for table in tables) <= 2 + 8


def test_the_page_is_short(written: Path) -> None:
    check_size((written / page.NAME).read_text())


def test_metrics_are_kept_one_round_a_line(written: Path) -> None:
    for name, results in results_of().items():
        text = (written / plots.FOLDER / f"{name}.json").read_text()
        kept = json.loads(text)
        rounds = list(itertools.chain(*results["measured"].values()))
        assert list(itertools.chain(*kept["measured"].values())) == page.rounded({"": rounds})[""]
        assert len(text.splitlines()) <= len(rounds) + 20


def test_a_goal_that_is_missed_is_said_to_be() -> None:
    for slower, missed in ((1.2, 2), (0.5, 5)):  # CPU, and TTFT at one stream; tokens/s
        table = overhead.goal_table(results_of(slower)["overhead"])
        assert table.count("**missed**") == missed
        assert table.count("| met |") == len(overhead.GOALS) - missed


def test_the_published_page_and_plots_are_made_of_the_metrics_beside_them() -> None:
    text = (bench.DOCS / page.NAME).read_text()
    assert text == page.page(bench.DOCS / plots.FOLDER)
    check_size(text)
    linked = re.findall(r"!\[.*?\]\((.*?)\)", text)
    folder = bench.DOCS / plots.FOLDER
    assert {f"{plots.FOLDER}/{file.name}" for file in folder.glob("*.svg")} == set(linked)


def a_plot() -> Plot:
    line = {1.0: Spread(1, 2, 3), 4.0: Spread(2, 2.5, 4)}
    return Plot("a title", (Panel("tokens/s", "streams", {"one way": line, "another": line}),))


def test_a_plot_is_a_small_svg_with_its_words_and_the_same_each_time(tmp_path: Path) -> None:
    plots.draw(a_plot(), tmp_path / "one.svg")
    plots.draw(a_plot(), tmp_path / "two.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    words = {node.text for node in ElementTree.fromstring(drawn).iter() if node.text}
    assert {"a title", "tokens/s", "streams", "one way", "another", "4"} <= words
    assert len(drawn) < 40_000
    assert "dc:date" not in drawn


def test_bars_are_drawn_under_their_names(tmp_path: Path) -> None:
    bars = Bars("seconds", {"bare `vllm serve`": Spread(1, 2, 3), "ours": Spread(1, 1, 1)})
    plots.draw(Plot("starts", (bars,)), tmp_path / "bars.svg")
    words = {node.text for node in ElementTree.parse(tmp_path / "bars.svg").iter() if node.text}
    assert {"bare `vllm serve`", "ours", "seconds"} <= words


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, scripts.bench; assert 'matplotlib' not in sys.modules, 'imported'"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'packages'}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr

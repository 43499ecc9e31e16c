"""`make bench` but for the measuring: metrics, tables, plots, what is kept, what is refused."""

import asyncio
import base64
import io
import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from PIL import Image
from rich.console import Console

from bench import (
    backends,
    client,
    cpu,
    deployment,
    images,
    metrics,
    overhead,
    page,
    plots,
    scaling,
    servers,
    session,
    startup,
    stock,
)
from bench.deployment import Target
from bench.errors import BenchError
from bench.metrics import Goal, Load, Metrics, Spread, Way
from bench.overhead import BARE, NGINX
from bench.part import Point
from bench.plots import Bars, Panel, Plot
from bench.session import Session
from deploy import baseten, cards
from deploy.baseten import BasetenError
from deploy.paths import ROOT
from local.truss import CannotServeError
from scripts import bench

KEY = "a-key-nobody-must-see"


@pytest.fixture
def run(tmp_path: Path) -> Session:
    return Session(tmp_path / "kept.json", {"part": "any"}, Console(quiet=True))


# --- starts ---


def test_ratios_of_starts_are_within_a_round() -> None:
    rounds = [
        {startup.CONTAINER: 10.0, startup.BARE: 20.0},
        {startup.CONTAINER: 30.0, startup.BARE: 30.0},
        {startup.CONTAINER: 30.0, startup.BARE: 40.0},
    ]
    table = startup.values({"measured": {"mistral-7b": rounds}})["table"]
    assert "| 30.0 (20.0–40.0) | × 0.75 (0.50–1.00) | at most 0.75 | met |" in table


def test_a_cold_start_is_compared_with_a_cold_one() -> None:
    starts = {startup.CONTAINER: 10.0, startup.BARE: 20.0}
    rounds = [{**starts, startup.COLD_CONTAINER: 60.0, startup.COLD_BARE: 50.0}]
    table = startup.values({"measured": {"mistral-7b": rounds}})["table"]
    assert "| × 1.20 (1.20–1.20) | at most 0.75 | **missed** |" in table


def test_what_a_cold_start_reads_is_taken_out_of_the_page_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forgotten = []
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")

    def advise(file: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        forgotten.append(os.readlink(f"/proc/self/fd/{file}").removeprefix(f"{tmp_path}/"))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    startup.forget(tmp_path)
    assert forgotten == ["folder/file"]


def test_each_round_begins_with_another_way(run: Session) -> None:
    order: list[str] = []

    def start(name: str) -> startup.Start:
        def begin() -> float:
            order.append(name)
            return 1.0

        return begin

    startup.in_turn(run, {name: start(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abcbcacab"


def test_what_a_failed_start_said_last_is_shown_without_supervisord_s_ends() -> None:
    log = ["ValueError: no such model\n", "x INFO stopped: nginx (exit status 0)\n"]
    assert servers.last_words(log) == "ValueError: no such model"
    assert servers.last_words([]) == "nothing was logged"


@pytest.mark.parametrize("name", cards.names())
def test_a_server_to_measure_has_a_bypass_and_room_for_256_streams(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(servers, "mounts", lambda config: {})  # no stand-in has to be there
    built = servers.truss(cards.load(name), {**servers.ROOM, "--dtype": metrics.DTYPE}, True)
    for flag, value in {**servers.ROOM, "--dtype": "bfloat16"}.items():
        assert f"{flag} {value}" in built.command
    assert "--tensor-parallel-size 1" in built.command
    assert "--middleware bench_bypass.Bypass" in built.command
    assert "predict.app.Gateway" not in built.command
    assert any(path.endswith("bench_bypass.py") for path in built.image.files)


# --- metrics ---


def test_metrics_of_requests_are_in_the_units_their_titles_name() -> None:
    found = metrics.measured(2.0, 40, [0.010, 0.020, 0.030], [[0.004], [0.005, 0.006]])
    assert found["tokens_per_s"] == 20
    assert found["ttft_p50_ms"] == pytest.approx(20)
    assert found["itl_p50_ms"] == pytest.approx(5)
    assert list(found) == list(metrics.METRICS)
    values = [0.3, 0.1, 7.0, 0.2, 0.9, 1.0, 0.4]
    p99 = metrics.measured(1, 1, values, [[1]])["ttft_p99_ms"]
    assert p99 == pytest.approx(float(numpy.percentile(values, 99)) * 1000)


def test_text_that_comes_in_one_piece_has_no_itl_and_is_no_figure() -> None:
    with pytest.raises(BenchError, match="in more than one piece"):
        metrics.measured(2.0, 40, [0.010], [[]])


def test_a_ratio_is_of_metrics_of_one_round() -> None:
    rounds = [
        {"a": {"x": 10.0}, "b": {"x": 20.0}},
        {"a": {"x": 30.0}, "b": {"x": 30.0}},
        {"a": {"x": 30.0}, "b": {"x": 40.0}},
    ]
    assert metrics.ratio(rounds, "a", "b", "x") == Spread(0.5, 0.75, 1.0)
    assert metrics.difference(rounds, "a", "b", "x") == Spread(-10, -10, 0)


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("", least=2), True),
        (Goal("", least=2.1), False),
        (Goal("", most=2), True),
        (Goal("", most=1.9), False),
    ],
)
def test_a_goal_is_met_by_the_median(goal: Goal, met: bool) -> None:
    assert goal.met(Spread(0, 2, 9)) == met
    assert ("met |" in goal.row("", Spread(0, 2, 9)).replace("**missed**", "")) == met


# --- images ---


@pytest.mark.parametrize("size", [10_000, 2_000_000])
def test_an_image_weighs_what_it_is_asked_to_and_no_two_are_alike(size: int) -> None:
    first, second = images.data_url(size, 1), images.data_url(size, 2)
    assert size - 4 < len(first) <= size
    assert first == images.data_url(size, 1)
    decoded = [_decoded(url) for url in (first, second)]
    assert [it.size for it in decoded] == [(images.SIDE, images.SIDE)] * 2
    assert decoded[0].tobytes() != decoded[1].tobytes()


def _decoded(url: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix(images.HEAD))))
    image.load()
    return image


# --- the parts' pages ---

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


@pytest.mark.parametrize("quick", [True, False])
def test_three_models_are_measured_unless_one_is_named(quick: bool) -> None:
    every = overhead.groups(None, quick)
    names = {"mistral-7b"} if quick else set(overhead.MODELS)
    assert {group.model for group in every} == names
    for name in cards.names():
        assert {group.model for group in overhead.groups(name, quick)} == {name}


# --- how requests are sent ---


@dataclass
class Asked:
    """What vLLM hands to a backend, as far as ours look at it."""

    api_url: str = ""
    extra_body: Any = None
    multi_modal_content: Any = None


def test_ways_take_turns_and_each_request_has_its_fields_and_images() -> None:
    async def send(asked: Asked, session: Any, pbar: Any) -> Asked:
        return asked

    def with_images(name: str) -> backends.Send:
        return backends.with_images(send, (f"{name}{n}" for n in itertools.count()), 2)

    ways = [Way("a", "", "http://a"), Way("b", "", "http://b", {"tools": 1})]
    sends = [(with_images(way.name), way) for way in ways]
    readings = iter([{"s": 1.0}, {"s": 2.0}])
    turns = backends.InTurn(sends, 4, lambda: next(readings))

    async def ask() -> None:
        for _ in range(4):
            await turns(Asked(extra_body={"x": 0}), None)

    asyncio.run(ask())
    assert [[it.api_url for it in outputs] for outputs in turns.outputs] == [
        ["http://a"] * 2,
        ["http://b"] * 2,
    ]
    assert [it.extra_body for it, *_ in turns.outputs] == [{"x": 0}, {"x": 0, "tools": 1}]
    pictures = [part["image_url"]["url"] for part in turns.outputs[1][1].multi_modal_content]
    assert pictures == ["b2", "b3"]
    assert turns.readings == [{"s": 1.0}, {"s": 2.0}]


def test_ways_take_turns_piece_by_piece_and_the_pieces_are_one_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    @dataclass
    class Output:
        ttft: float = 0.002
        output_tokens: int = 10
        itl: tuple[float, ...] = (0.001,)

    def answered(self: Any, ways: list[Way], piece: Load) -> Any:
        asked.append((ways[0].name, piece.requests))
        turns = SimpleNamespace(outputs=[[Output()] * piece.requests])
        return turns, 2.0, {cpu.NGINX: 0.001}

    monkeypatch.setattr(client.Bench, "_run", answered)
    measuring = client.Bench.__new__(client.Bench)
    found = measuring.under([BARE, NGINX], Load(4, 40, 10))
    assert asked == [
        *((BARE.name, 16), (NGINX.name, 16)),
        *((NGINX.name, 16), (BARE.name, 16)),
        *((BARE.name, 8), (NGINX.name, 8)),
    ]
    assert found[NGINX.name]["tokens_per_s"] == pytest.approx(400 / 6)
    assert found[NGINX.name][cpu.NGINX] == pytest.approx(0.003 / 400 * 1e6)


# --- plots ---


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


# --- what is kept of a run that was stopped ---


class StoppedError(Exception):
    pass


def stopped_after(rounds: int) -> Any:
    def do(number: int) -> int:
        if number == rounds:
            raise StoppedError
        return number * 10

    return do


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file, quiet = tmp_path / "kept.json", Console(quiet=True)
    first = Session(file, {"model": "a"}, quiet)
    with pytest.raises(StoppedError):
        first.each("rounds", 5, stopped_after(2))
    again = Session(file, {"model": "a"}, quiet)
    assert again.lacks("rounds", 5)
    asked: list[int] = []

    def do(number: int) -> int:
        asked.append(number)
        return number * 10

    assert again.each("rounds", 5, do) == [0, 10, 20, 30, 40]
    assert asked == [2, 3, 4]
    assert not again.lacks("rounds", 5)
    again.forget()
    assert not file.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"key": {"model": "b"}, "done": {"rounds": [1]}}'])
def test_what_is_kept_of_another_run_is_not_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / "kept.json").write_text(content)
    assert Session(tmp_path / "kept.json", {"model": "a"}, Console(quiet=True)).done == {}


def test_fresh_throws_away_what_was_kept(tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    Session(tmp_path / "kept.json", {}, quiet).each("rounds", 1, lambda number: number)
    assert Session(tmp_path / "kept.json", {}, quiet).done == {"rounds": [0]}
    assert Session(tmp_path / "kept.json", {}, quiet, fresh=True).done == {}


def test_sources_that_change_begin_a_run_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(session, "ROOT", tmp_path)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "a.py").write_text("1")
    before = session.sources()
    assert session.sources() == before
    (tmp_path / "bench" / "a.py").write_text("2")
    assert session.sources() != before


# --- what is refused ---


def test_make_bench_measures_a_part_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--part", "none"]) == 2
    assert "startup" in capsys.readouterr().err


def test_a_part_that_cannot_run_is_one_line_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def taken(ports: object) -> None:
        raise CannotServeError("port 8080, which nginx needs, is taken")

    monkeypatch.setattr("scripts.bench.check_machine", taken)
    assert bench.main(["--part", "overhead", "--output", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err == "make bench: overhead: port 8080, which nginx needs, is taken\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert bench.main(["--part", "overhead", "--model", "none", "--output", str(tmp_path)]) == 2
    assert "mistral-7b" in capsys.readouterr().err


def test_a_run_that_is_stopped_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stopped(model: str | None, quick: bool, run: Session) -> dict[str, Any]:
        run.each("rounds", 1, lambda number: number)
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.bench.check_machine", lambda ports: None)
    monkeypatch.setattr(overhead, "measure", stopped)
    assert bench.main(["--part", "overhead", "--output", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["overhead.partial.json"]


# --- a deployment by its URL ---


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/predict", "http://127.0.0.1:8080/v1"),
        (
            "https://model-abc.api.baseten.co/environments/production/predict",
            "https://model-abc.api.baseten.co/environments/production/sync/v1",
        ),
        ("https://bridge.baseten.co/abc/v1/direct", "https://bridge.baseten.co/abc/v1/direct"),
        (
            "https://model-abc.api.baseten.co/environments/production/sync",
            "https://model-abc.api.baseten.co/environments/production/sync/v1",
        ),
        ("https://somewhere.example/v1/chat/completions", "https://somewhere.example/v1"),
    ],
)
def test_any_address_of_a_deployment_will_do(url: str, base: str) -> None:
    assert deployment.target(url, {baseten.KEY: KEY}) == Target(base, KEY)


def test_a_server_of_this_machine_needs_no_key_and_others_do() -> None:
    assert deployment.target("http://localhost:8080", {}).key is None
    with pytest.raises(BasetenError, match="BASETEN_API_KEY is not set"):
        deployment.target("https://model-abc.api.baseten.co", {})


@pytest.mark.parametrize(
    "url", ["ftp://x", "nothing", "http://elsewhere.example", "http://127.0.0.1:abc"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(BasetenError, match=f"^URL='{url}'"):
        deployment.target(url, {baseten.KEY: KEY})


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert bench.main(["--output", str(file)]) == 1
    assert "OUTPUT= takes a folder" in capsys.readouterr().err


def test_an_address_that_is_empty_does_not_measure_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["--url", ""]) == 1
    assert "URL='' is no address" in capsys.readouterr().err


def test_a_deployment_has_no_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--url", "http://127.0.0.1:8080", "--part", "overhead"]) == 2
    assert "URL= measures a deployment, which has no parts" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://user:secret@x.example", "https://x.example?key=secret"])
def test_a_key_has_no_place_in_an_address(url: str) -> None:
    with pytest.raises(BenchError, match="takes an address alone") as refused:
        deployment.target(url, {baseten.KEY: KEY})
    assert "secret" not in str(refused.value)

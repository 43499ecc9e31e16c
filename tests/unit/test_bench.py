"""`make bench` but for the measuring: figures, tables, plots, what is kept, what is refused."""

import asyncio
import base64
import io
import itertools
import os
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
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
    plots,
    scaling,
    session,
    startup,
    startup_phases,
    startup_ways,
)
from bench.deployment import Target
from bench.errors import BenchError
from bench.metrics import Figures, Spread, Way
from bench.overhead import BARE, GOALS, NGINX, OLDER, OPENAI
from bench.plots import Bars, Panel, Plot
from bench.session import Session
from bench.startup_ways import Start
from deploy import baseten, cards
from deploy.baseten import BasetenError
from deploy.paths import ROOT
from local import sandbox, truss
from local.truss import CannotServeError
from scripts import bench

LOG = [
    (float(at), f"INFO {phase.ends_with} more") for at, phase in enumerate(startup_phases.PHASES, 1)
]
KEY = "a-key-nobody-must-see"


@pytest.fixture
def run(tmp_path: Path) -> Session:
    return Session(tmp_path / "kept.json", {"part": "any"}, Console(quiet=True))


# --- phases and ways of a start ---


def test_phases_follow_each_other_and_add_up_to_the_whole() -> None:
    noise = [(at - 0.5, "INFO something else") for at, _ in LOG]
    found = startup_phases.phases(sorted([*LOG, *noise]), answered=12.5)
    assert list(found) == [
        *(phase.name for phase in startup_phases.PHASES),
        startup_phases.ANSWER,
    ]
    assert sum(found.values()) == 12.5
    assert found["weights"] == 1


def test_a_line_that_vllm_no_longer_logs_is_named() -> None:
    without = [(at, line) for at, line in LOG if "Loading weights took" not in line]
    with pytest.raises(BenchError, match=r"'Loading weights took'.*mend bench/startup_phases.py"):
        startup_phases.phases(without, answered=12.5)


def test_ratios_are_within_a_round() -> None:
    rounds = [
        {startup.CONTAINER: 10.0, startup.BARE: 20.0},
        {startup.CONTAINER: 30.0, startup.BARE: 30.0},
        {startup.CONTAINER: 30.0, startup.BARE: 40.0},
    ]
    row = next(line for line in startup.way_table(rounds) if startup.BARE in line)
    assert "| 30.0 (20.0 to 40.0) | 0.75 (0.50 to 1.00) | at most 1.05 | met |" in row


def test_a_cold_start_is_held_against_a_cold_one() -> None:
    starts = {startup.CONTAINER: 10.0, startup.BARE: 20.0}
    rounds = [{**starts, startup.COLD_CONTAINER: 60.0, startup.COLD_BARE: 50.0}]
    row = next(line for line in startup.way_table(rounds) if startup.COLD_BARE in line)
    assert "| 1.20 (1.20 to 1.20) | at most 1.05 | **missed** |" in row


def test_a_cold_start_forgets_the_environment_and_the_weights_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order = []
    for folder in ("venv/bin", "python", "weights"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()

    def advise(file: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        order.append(os.readlink(f"/proc/self/fd/{file}").removeprefix(f"{tmp_path}/"))

    def way() -> Start:
        order.append("start")
        return Start(1.0, {})

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(sandbox, "VENV", tmp_path / "venv")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: tmp_path / "python")
    image = truss.Image({}, {"/models/x": tmp_path / "weights"}, {})
    assert startup_ways.cold(way, startup_ways.Truss(image, ""))() == Start(1.0, {})
    assert order == ["venv/bin/file", "python/file", "weights/file", "start"]


def test_each_round_begins_with_another_way(run: Session) -> None:
    order: list[str] = []

    def way(name: str) -> startup_ways.Way:
        def begin() -> Start:
            order.append(name)
            return Start(1.0, {})

        return begin

    startup.in_turn(run, "starts", {name: way(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abcbcacab"
    ways = [Way(name, "", "") for name in "abc"]
    assert [[way.name for way in metrics.turned(ways, number)] for number in range(3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


def test_a_step_that_is_taken_away_was_there() -> None:
    now = startup_ways.today(cards.load("mistral-7b"))
    less = now.without("/packages/start/modelinfos")
    assert len(less.image.files) < len(now.image.files)
    with pytest.raises(BenchError, match="no file of the image is in /packages/nothing"):
        now.without("/packages/nothing")


# --- figures ---


def test_percentiles_are_numpy_s_which_vllm_s_own_are() -> None:
    values = [0.3, 0.1, 7.0, 0.2, 0.9, 1.0, 0.4]
    for percent in (0, 50, 90, 99, 100):
        expected = float(numpy.percentile(values, percent))
        assert metrics.percentile(values, percent) == pytest.approx(expected)


def test_figures_of_requests_are_in_the_units_their_titles_name() -> None:
    found = metrics.measured(2.0, 40, [0.010, 0.020, 0.030], [[0.004], [0.005, 0.006]])
    assert found["requests_per_s"] == 1.5
    assert found["tokens_per_s"] == 20
    assert found["ttft_p50_ms"] == pytest.approx(20)
    assert found["itl_p50_ms"] == pytest.approx(5)
    assert list(found) == list(metrics.FIGURES)


def test_text_that_comes_in_one_piece_has_no_itl_and_is_no_figure() -> None:
    with pytest.raises(BenchError, match="in more than one piece"):
        metrics.measured(2.0, 40, [0.010], [[]])


def test_a_ratio_is_of_figures_of_one_round() -> None:
    rounds = [
        {"a": {"x": 10.0}, "b": {"x": 20.0}},
        {"a": {"x": 30.0}, "b": {"x": 30.0}},
        {"a": {"x": 30.0}, "b": {"x": 40.0}},
    ]
    assert metrics.ratio(rounds, "a", "b", "x") == Spread(0.5, 0.75, 1.0)
    assert metrics.difference(rounds, "a", "b", "x") == Spread(-10, -10, 0)


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


def some_figures(factor: float = 1.0) -> Figures:
    return {name: factor * (10 + place) for place, name in enumerate(metrics.FIGURES)}


def path_results(slower: float = 1.0) -> dict[str, Any]:
    """Results as `overhead.measure` gives them; every way but the bare one is `slower`."""
    at = {
        way.name: some_figures(1.0 if way is BARE else slower)
        for way in (BARE, NGINX, OPENAI, OLDER)
    }
    loads = [vars(it) for it in overhead.TEXT.loads]
    rounds = [{str(it["streams"]): at for it in loads} for _ in range(5)]
    reading = {
        "repeats": 3,
        "rows": [{"body": "one", "bytes": 9, "goal": "", "ms": vars(Spread(1, 2, 3))}],
    }
    measured = {"model": "mistral-7b", "kind": "text", "loads": loads, "rounds": rounds}
    return {**SOMEWHERE, "reading": reading, "measured": [measured]}


SOMEWHERE = {"machine": "m", "versions": "v", "commit": "c", "date": "d"}


def growth_results() -> dict[str, Any]:
    measured = []
    for sweep in scaling.SWEEPS:
        row = {scaling.MEMORY: 900.0} if sweep.memory else some_figures()
        at = {way.name: row for way in scaling.WAYS}
        rounds = [{str(getattr(it, sweep.over)): at for it in sweep.loads}] * 5
        measured.append({"model": "mistral-7b", "sweep": sweep.title, "rounds": rounds})
    return {**SOMEWHERE, "measured": measured}


def test_a_row_for_every_way_at_every_number_of_streams() -> None:
    (measured,) = path_results()["measured"]
    ways = [way.name for way in (BARE, NGINX, OPENAI, OLDER)]
    table = metrics.figure_table(measured["rounds"], ways)[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table]
    assert [cell[:2] for cell in cells] == [
        [streams, way.name]
        for streams in ("1", "4", "16", "64")
        for way in (BARE, NGINX, OPENAI, OLDER)
    ]
    assert all(len(cell) == 2 + len(metrics.FIGURES) and all(cell) for cell in cells)
    pairs = {way: (way, BARE.name) for way in ways[1:]}
    assert len(metrics.ratio_table(measured["rounds"], "way", pairs)[2:]) == 4 * 3
    of_cpu = metrics.figure_table(measured["rounds"], ways, cpu.CPU)[2:]
    assert not of_cpu, "these rounds have none"


def test_ways_take_turns_piece_by_piece_and_the_pieces_are_one_load() -> None:
    asked = []

    @dataclass
    class Output:
        ttft: float = 0.002
        output_tokens: int = 10
        itl: tuple[float, ...] = (0.001,)

    class Recorded(client.Bench):
        def __init__(self) -> None:
            pass

        def asked(self, way: Way, piece: metrics.Load) -> client.Asked:
            asked.append((way.name, piece.requests))
            return client.Asked([Output()] * piece.requests, 2.0, {cpu.NGINX: 0.001})

    found = client.under(Recorded(), [BARE, NGINX], metrics.Load(4, 20, 10))
    assert asked == [
        *((BARE.name, 8), (NGINX.name, 8)),
        *((NGINX.name, 8), (BARE.name, 8)),
        *((BARE.name, 4), (NGINX.name, 4)),
    ]
    assert found[NGINX.name]["requests_per_s"] == pytest.approx(20 / 6)
    assert found[NGINX.name][cpu.NGINX] == pytest.approx(0.003 / 200 * 1e6)


def test_a_goal_that_is_missed_is_said_to_be() -> None:
    for goal in GOALS:
        fine, poor = (
            overhead.goal_table(path_results(slower)["measured"]) for slower in (1.0, 1.2)
        )
        slow = overhead.goal_table(path_results(0.9)["measured"])
        assert not [row for row in fine if "missed" in row]
        if goal.least:  # throughput: less is worse
            assert [row for row in slow if goal.text in row and "**missed**" in row]
        else:
            assert [row for row in poor if goal.text in row and "**missed**" in row]


def test_the_page_has_each_part_and_every_plot_it_links_to(tmp_path: Path) -> None:
    parts = {"overhead": path_results(), "scaling": growth_results()}
    for name, results in parts.items():
        bench.write(tmp_path, name, results)
        bench.drawn(bench.PARTS[name], results, tmp_path / plots.FOLDER)
    page = bench.page(tmp_path / plots.FOLDER)
    assert "## What stands before vLLM costs" in page
    goals = overhead.goal_table(path_results()["measured"])[2:]
    assert f"Goals met: {len(goals)} of {len(goals)}." in page
    assert "## How cost grows" in page
    assert "## From the start of the container" not in page
    assert "**Not measured by us**" in page
    linked = [line.split("(")[-1].rstrip(")") for line in page.splitlines() if line[:2] == "!["]
    assert len(linked) == 1 + len(scaling.SWEEPS)
    for link in linked:
        assert ElementTree.parse(tmp_path / link).getroot().tag.endswith("svg")
    there = {f"{plots.FOLDER}/{file.name}" for file in (tmp_path / plots.FOLDER).glob("*.svg")}
    assert there == set(linked)


def test_goals_that_are_missed_are_not_counted_as_met() -> None:
    rows = overhead.goal_table(path_results(1.2)["measured"])
    missed = sum("missed" in row for row in rows)
    assert missed
    assert bench.goals_met(rows) == [f"Goals met: {len(rows) - 2 - missed} of {len(rows) - 2}."]
    assert bench.goals_met(["no table"]) == []


def test_the_published_page_is_made_of_the_figures_beside_it() -> None:
    assert (bench.DOCS / bench.PAGE).read_text() == bench.page(bench.DOCS / plots.FOLDER)


def test_the_published_plots_are_there_and_no_others() -> None:
    page = (bench.DOCS / bench.PAGE).read_text()
    linked = [line.split("(")[-1].rstrip(")") for line in page.splitlines() if line[:2] == "!["]
    there = {f"{plots.FOLDER}/{file.name}" for file in (bench.DOCS / plots.FOLDER).glob("*.svg")}
    assert there == set(linked)


@pytest.mark.parametrize("quick", [True, False])
def test_the_path_is_measured_of_every_model_unless_one_is_named(quick: bool) -> None:
    every = overhead.planned(None, quick)
    assert {card.name for card, _ in every} == ({"mistral-7b"} if quick else set(cards.names()))
    for name in cards.names():
        assert {card.name for card, _ in overhead.planned(name, quick)} == {name}
    if not quick:
        assert {it.streams for _, kind in every for it in kind.loads} == {1, 4, 16, 64}
        assert all(kind.plan.rounds >= 5 for _, kind in every)


@pytest.mark.parametrize("name", cards.names())
def test_the_server_has_both_doors_and_room_for_256_streams(name: str) -> None:
    config = client.with_doors(cards.load(name), scaling.ROOM)
    command = yaml.safe_load(config)["docker_server"]["start_command"]
    for flag, value in {
        **scaling.ROOM,
        "--dtype": "bfloat16",
        "--tensor-parallel-size": "1",
    }.items():
        assert f"{flag} {value} " in command
    assert "--middleware bench_switch.Switch" in command
    assert "predict.admission.AdmissionMiddleware" not in command


@dataclass
class Asked:
    """What vLLM hands to a backend, as far as ours look at it."""

    api_url: str = ""
    multi_modal_content: Any = None


def test_ways_take_turns_and_each_request_has_images_of_its_own() -> None:
    async def send(asked: Asked, session: Any, pbar: Any) -> Asked:
        return asked

    def pictured(name: str) -> backends.Send:
        return backends.with_images(send, (f"{name}{n}" for n in itertools.count()), 2)

    ways = [(pictured("a"), "http://a"), (pictured("b"), "http://b")]
    turns = backends.InTurn(ways)
    for _ in range(4):
        asyncio.run(_ask(turns))
    seen = [
        [(it.api_url, [part["image_url"]["url"] for part in it.multi_modal_content]) for it in way]
        for way in turns.outputs
    ]
    assert seen == [
        [("http://a", ["a0", "a1"]), ("http://a", ["a2", "a3"])],
        [("http://b", ["b0", "b1"]), ("http://b", ["b2", "b3"])],
    ]


async def _ask(turns: backends.InTurn) -> None:
    await turns(Asked(), None)


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


def test_what_is_left_is_reckoned_from_the_rounds_so_far(run: Session) -> None:
    with run.expecting(4, 30):
        assert run.left() == 120
        run.each("rounds", 1, lambda number: number)
        run.spent = [10.0]
        assert run.left() == 30


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


def test_what_a_failed_start_said_last_is_shown_without_supervisord_s_ends() -> None:
    log = [(1.0, "ValueError: no such model\n"), (2.0, "x INFO stopped: nginx (exit status 0)\n")]
    assert startup_ways.last_words(log) == "ValueError: no such model"
    assert startup_ways.last_words([]) == "nothing was logged"


def test_a_deployment_has_no_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--url", "http://127.0.0.1:8080", "--part", "overhead"]) == 2
    assert "URL= measures a deployment, which has no parts" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://user:secret@x.example", "https://x.example?key=secret"])
def test_a_key_has_no_place_in_an_address(url: str) -> None:
    with pytest.raises(BenchError, match="takes an address alone") as refused:
        deployment.target(url, {baseten.KEY: KEY})
    assert "secret" not in str(refused.value)

"""`make bench` but for the measuring: metrics, tables, plots, what is kept, what is refused."""

import asyncio
import base64
import io
import itertools
import os
import select
import subprocess
import sys
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
    images,
    metrics,
    overhead,
    servers,
    startup,
)
from bench.errors import BenchError
from bench.metrics import Goal, Load, Spread, Way
from bench.overhead import BARE, NGINX
from bench.session import Session
from deploy import cards


@pytest.fixture
def run(tmp_path: Path) -> Session:
    return Session(tmp_path / "kept.json", {"part": "any"}, Console(quiet=True))


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


def test_a_benchmark_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    server = tmp_path / "bin" / "vllm"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\necho $$; exec sleep 600\n")
    server.chmod(0o755)
    code = f"""
import sys
from pathlib import Path
sys.path[:] = {sys.path!r}
from bench import servers
servers.sandbox.VENV = Path({str(tmp_path)!r})
with servers._vllm(Path("weights"), [], {dict(os.environ)!r}) as pipe:
    print(pipe.readline().decode(), end="", flush=True)
    pipe.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as benchmark:
        assert benchmark.stdout
        ended = os.pidfd_open(int(benchmark.stdout.readline()))
        benchmark.kill()
    assert select.select([ended], [], [], 60)[0]
    os.close(ended)


@pytest.mark.parametrize("name", cards.names())
def test_a_server_to_measure_has_a_bypass_and_room_for_256_streams(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(servers, "mounts", lambda _, plugins: {})  # no stand-in has to be there
    built = servers.truss(cards.load(name), {**servers.ROOM, "--dtype": metrics.DTYPE}, True)
    for flag, value in {**servers.ROOM, "--dtype": "bfloat16"}.items():
        assert f"{flag} {value}" in built.command
    assert "--tensor-parallel-size 1" in built.command
    assert "--middleware bench_bypass.Bypass" in built.command
    assert "predict.app.Gateway" not in built.command
    assert any(path.endswith("bench_bypass.py") for path in built.image.files)


def test_metrics_of_requests_are_in_the_units_their_titles_name() -> None:
    found = metrics.measured(2.0, 40, [0.010, 0.020, 0.030], [[0.004], [0.005, 0.006]])
    assert found["tokens_per_s"] == 20
    assert found["ttft_p50_ms"] == pytest.approx(20)
    assert found["itl_p50_ms"] == pytest.approx(5)
    assert list(found) == list(metrics.METRICS)
    values = [0.3, 0.1, 7.0, 0.2, 0.9, 1.0, 0.4]
    p99 = metrics.measured(1, 1, values, [[1]])["ttft_p99_ms"]
    assert p99 == pytest.approx(float(numpy.percentile(values, 99)) * 1000)


def test_text_that_comes_in_one_piece_has_no_itl_and_is_not_a_figure() -> None:
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


@pytest.mark.parametrize("quick", [True, False])
def test_three_models_are_measured_unless_one_is_named(quick: bool) -> None:
    every = overhead.groups(None, quick)
    names = {"mistral-7b"} if quick else set(overhead.MODELS)
    assert {group.model for group in every} == names
    for name in cards.names():
        assert {group.model for group in overhead.groups(name, quick)} == {name}


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


def test_a_warm_up_takes_answers_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answered(self: Any, ways: list[Way], piece: Load) -> Any:
        asked.append((ways[0].name, piece.requests))
        output = SimpleNamespace(ttft=0.002, output_tokens=10, itl=[])  # as on a busy machine
        return SimpleNamespace(outputs=[[output] * piece.requests]), 2.0, {}

    monkeypatch.setattr(client.Bench, "_run", answered)
    client.Bench.__new__(client.Bench).warm_up([BARE, NGINX], Load(4, 40, 10))
    assert asked == [(BARE.name, 4), (NGINX.name, 4)]

"""Runs of `make bench`: what is kept of one, what a command refuses, deployments by their URL."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import (
    deployment,
    overhead,
    session,
)
from bench.deployment import Target
from bench.errors import BenchError
from bench.session import Session
from deploy import baseten
from deploy.baseten import BasetenError
from local.truss import CannotServeError
from scripts import bench

KEY = "a-key-nobody-must-see"


@pytest.fixture
def run(tmp_path: Path) -> Session:
    return Session(tmp_path / "kept.json", {"part": "any"}, Console(quiet=True))


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
    assert "URL='' is not an address" in capsys.readouterr().err


def test_a_deployment_has_no_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--url", "http://127.0.0.1:8080", "--part", "overhead"]) == 2
    assert "URL= measures a deployment, which has no parts" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["https://user:secret@x.example", "https://x.example?key=secret"])
def test_a_key_has_no_place_in_an_address(url: str) -> None:
    with pytest.raises(BenchError, match="takes an address alone") as refused:
        deployment.target(url, {baseten.KEY: KEY})
    assert "secret" not in str(refused.value)

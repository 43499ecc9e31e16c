"""What may go to the engine is tried in a process that survives whatever it tries."""

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from predict.constraints import common, process, trial

from deploy.paths import ROOT
from tests.support.quick_trials import HEAVY

xgrammar = pytest.importorskip("xgrammar")

VOCABULARY = ["</s>", *map(chr, range(32, 127)), "ab", "abc", "true", '{"', '":']


class Process:
    """`python -m predict.constraints.process` for a small vocabulary."""

    def __init__(self) -> None:
        info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "predict.constraints.process"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "packages")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.send({"tokenizer": info.serialize_json(), "separators": [",", ":"]})
        assert self.receive() == {"ready": True}

    def send(self, *requests: Any) -> None:
        assert self.process.stdin is not None
        lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        self.process.stdin.write(lines)
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def verdict(self, kind: str, text: str) -> Any:
        self.send({"id": 7, "kind": kind, "text": text})
        answer = self.receive()
        assert answer["id"] == 7
        return answer["error"]


@pytest.fixture(scope="module")
def asked() -> Iterator[Process]:
    started = Process()
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    assert started.process.wait(10) == 0
    assert started.process.stdout is not None
    started.process.stdout.close()


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", json.dumps(SCHEMA)),
        ("regex", "[a-z]{1,20}( [a-z]+)*"),
        ("ebnf", 'root ::= "yes" | "no"'),
        ("lark", 'start: "yes" | "no"'),
    ],
)
def test_ordinary_constraints_pass(asked: Process, kind: str, text: str) -> None:
    assert asked.verdict(kind, text) is None


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("regex", "(?<=a)b", "cannot be followed"),
        ("ebnf", "root ::= missing", "cannot be followed"),
        ("json_schema", "{", "cannot be followed"),
        ("ebnf", 'root ::= "a" ' + "(" * 50_000, ""),  # too deep for its reader
        ("regex", "a?" * 30_000, ""),  # too much of everything
    ],
)
def test_what_cannot_be_followed_is_refused_and_the_process_lives(
    asked: Process, kind: str, text: str, said: str
) -> None:
    error = asked.verdict(kind, text)
    assert error is not None
    assert said in error
    assert len(error) < 250
    asked.send({"id": 1, "kind": "regex", "text": "a*"})
    next_one = asked.receive()  # of idle priority after one that took long: it may get no time
    assert next_one["error"] is None or not next_one["in_time"]


def test_other_words_are_told_and_are_what_is_tried(asked: Process) -> None:
    words = {r"\bab?": ["ebnf", "root ::= [a] s1\ns1 ::= [b]?\n"], "ab?": None, r"\p{Greek}": None}
    for text, want in words.items():
        asked.send({"id": 7, "kind": "regex", "text": text})
        answer = asked.receive()
        assert answer["words"] == want
        assert (answer["error"] is None) is ("Greek" not in text)
        assert answer["keep"]


@pytest.mark.parametrize("written", [b"", b'{"error": nu'])
def test_what_a_fork_did_not_write_to_the_end_is_no_verdict(written: bytes) -> None:
    reader, writer = os.pipe()
    os.write(writer, written)
    os.close(writer)
    pid = os.posix_spawn("/bin/true", ["true"], {})
    verdict = process.Running({"id": 1}, pid, reader, idle=False).verdict()
    assert "could not be read and compiled" in verdict["error"]


def test_a_trial_takes_a_small_part_of_what_a_process_of_its_own_would(asked: Process) -> None:
    """By CPU time, of a fork that finds everything imported."""
    started = time.clock_gettime(~asked.process.pid << 3 | 2)  # its clock, as in process.py
    asked.send({"id": 7, "kind": "json_schema", "text": json.dumps(SCHEMA)})
    answer = asked.receive()
    assert answer["error"] is None or not answer["in_time"]
    assert 10 * answer["seconds"] < started


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", json.dumps(SCHEMA)),
        ("regex", "[a-z]{1,20}"),
        ("ebnf", 'root ::= "yes" | "no"'),
        ("lark", 'start: "yes" | "no"'),
    ],
)
def test_a_trial_imports_nothing(kind: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fork would again, for what it imports ends with it."""
    info = xgrammar.TokenizerInfo(VOCABULARY, stop_token_ids=[0])
    one = trial.Trial({"tokenizer": info.serialize_json(), "separators": None})
    imported, import_ = [], builtins.__import__

    def noted(name: str, *arguments: Any, **more: Any) -> Any:
        imported.append(name)
        return import_(name, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", noted)
        one(kind, text, lambda: None)
    assert imported == []


def test_many_at_once_are_answered_each(asked: Process) -> None:
    """With a verdict, or without one where the machine has no time for what has idle priority."""
    asked.send({"id": 0, "kind": "regex", "text": HEAVY})
    asked.send(*({"id": number, "kind": "regex", "text": "a*"} for number in range(1, 6)))
    answers = {answer["id"]: answer for answer in (asked.receive() for _ in range(6))}
    assert set(answers) == set(range(6))
    quick = [answers[number] for number in range(1, 6)]
    assert all(one["error"] is None or not one["in_time"] for one in quick)
    assert answers[0]["seconds"] < process.CPU_SECONDS + 2


class Fork:
    """One that is tried, and has taken as much CPU time as a test says."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.seconds = 0.0
        self.idle = self.killed = self.whole = False  # whole: it has written its verdict
        self.started = 0.0

    def taken(self) -> float:
        return self.seconds

    def give_way(self) -> None:
        self.idle = True

    def kill(self) -> None:
        self.killed = True

    def verdict(self) -> Any:
        return {"name": self.request, "in_time": self.whole or not self.killed}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []
    monkeypatch.setattr(process, "answer", lambda said: told.append(said.get("name", said)))
    monkeypatch.setattr(process.Trials, "_fork", lambda _, request, idle: Fork(request))
    return told


def test_a_quick_one_is_answered_before_a_slow_one_that_came_first(answers: list[Any]) -> None:
    trials: Any = process.Trials(None)  # type: ignore[arg-type]
    trials.ask(["slow"])
    trials.start()
    slow = trials.fresh
    trials.ask(["quick", "as quick"])
    trials.start()
    assert trials.running() == [slow]  # within its slice, the only one
    slow.seconds = process.SLICE_SECONDS * 1.1
    trials.tick(1.0)
    assert slow.idle
    for _ in range(2):
        trials.start()
        assert trials.slow is slow
        trials.ended(trials.fresh)
    trials.ended(slow)
    assert answers == ["as quick", "quick", "slow"]


@pytest.mark.parametrize("whole", [False, True])
def test_of_two_slow_ones_the_second_makes_room_and_is_tried_anew_unless_it_was_ready(
    answers: list[Any], whole: bool
) -> None:
    trials: Any = process.Trials(None)  # type: ignore[arg-type]
    for name in ("slow", "as slow"):
        trials.ask([name])
        trials.start()
        trials.fresh.seconds = process.SLICE_SECONDS * 1.1
        second = trials.fresh
        second.whole = whole
        trials.tick(1.0)
    assert second.killed
    if whole:
        assert (trials.later, answers) == ([], ["as slow"])
        return
    assert (trials.fresh, trials.later) == (None, ["as slow"])
    trials.ended(trials.slow)
    trials.start()
    assert trials.slow.request == "as slow"
    assert answers == ["slow"]


@pytest.mark.parametrize(
    ("number", "keep", "seconds"),
    [
        (signal.SIGXCPU, True, process.AGAIN_SECONDS),
        (signal.SIGSEGV, True, None),
        (signal.SIGKILL, False, None),
    ],
)
def test_what_a_fork_did_not_survive_is_for_good_unless_the_machine_may_be_the_cause(
    number: int, keep: bool, seconds: float | None
) -> None:
    verdict = process.died(2.04, number)
    assert (verdict["keep"], verdict["keep_seconds"]) == (keep, seconds)
    assert "2.0 s" in verdict["error"]
    assert f"{process.READING_SECONDS} s to read" in verdict["error"]


def test_the_slowest_mask_is_told(asked: Process) -> None:
    asked.send({"id": 7, "kind": "regex", "text": "[a-z]{3,9}b"})
    answer = asked.receive()
    assert 0 <= answer["mask_seconds"] < trial.MASK_SECONDS
    assert answer["keep"]


def test_the_newest_is_next_and_the_oldest_is_given_up(answers: list[Any]) -> None:
    trials: Any = process.Trials(None)  # type: ignore[arg-type]
    trials.ask({"id": number} for number in range(process.MOST_WAITING + 2))
    assert [said["id"] for said in answers] == [0, 1]
    assert not any(said["in_time"] for said in answers)
    trials.start()
    assert trials.fresh.request == {"id": process.MOST_WAITING + 1}


def test_while_nobody_asks_what_is_common_is_compiled_until_nothing_is_left() -> None:
    prepared: list[Any] = []
    trials = process.Trials(SimpleNamespace(prepare=prepared.append))  # type: ignore[arg-type]
    in_advance = common.schemas()
    while trials.prepare(in_advance):
        pass
    assert prepared == list(common.schemas())


def test_what_cannot_be_compiled_in_advance_keeps_nobody_from_asking() -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("another xgrammar's")

    trials = process.Trials(SimpleNamespace(prepare=fails))  # type: ignore[arg-type]
    assert not trials.prepare(common.schemas())

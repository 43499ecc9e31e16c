"""The older ways that the benchmarks compare with answer right, as streams, and leave nothing."""

import contextlib
import json
import tempfile
import urllib.request
from pathlib import Path

import pytest

from bench import older, peer, processes
from bench.errors import BenchError
from bench.peer import Peer
from scripts import cards, serve, standin

pytestmark = pytest.mark.parametrize("container", [None], ids=["alone"], indirect=True)


def pieces(of: Peer) -> int:
    """How many pieces of text a stream of a peer's comes in."""
    body = of.body(older.PROMPT.format("Tell me about yourself"), 40, True)
    request = urllib.request.Request(
        of.predict, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with serve.DIRECTLY.open(request, timeout=60) as response:
        count = 0
        while response.read1():
            count += 1
    return count


def folders() -> set[Path]:
    return {
        path for kind in ("peer-*", "truss-*") for path in Path(tempfile.gettempdir()).glob(kind)
    }


def test_the_peers_answer_to_the_letter_in_streams_and_leave_nothing(container: None) -> None:
    before = folders()
    checkpoint = standin.ensure(cards.load(older.MODEL))
    pids: list[int] = []
    with contextlib.ExitStack() as stack:
        starting = [
            stack.enter_context(peer.started(it, checkpoint)) for it in older.PEERS.values()
        ]
        for it in starting:
            it.wait()
            pids += processes.family(it.process.pid)
        for way in older.WAYS:
            if way.name in older.PEERS:
                older.check(way)
        assert {it.peer.name: pieces(it.peer) > 5 for it in starting} == dict.fromkeys(
            older.PEERS, True
        )
    assert not any(map(processes.is_alive, pids))
    assert folders() <= before


def test_a_peer_without_weights_says_why_it_did_not_start(container: None, tmp_path: Path) -> None:
    why = pytest.raises(BenchError, match="transformers' generate did not start")
    with peer.started(older.GENERATE, tmp_path) as starting, why:
        starting.wait()

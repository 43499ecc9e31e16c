"""Does to a container what docs/withstands.md lists, and writes the page with what was seen.

Promises: each line of a table was done in this run, to the real container (local/faults.py, which
the tests use too). A line that did not come out as it must is marked, and ends the command with
status 1. Times are of this machine and its stand-ins.
"""

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local import faults
from local.faults import API_SERVER, ENGINE, NGINX, WORKER, Outcome, Server
from scripts import render, serve
from scripts.bench import commit, machine
from scripts.cards import ROOT

PAGE = ROOT / "docs" / "withstands.md"
MODEL = "mistral-7b"
TENSOR_PARALLEL = "mixtral-8x7b"  # its engine has workers of its own
STALL_SECONDS = 5
END_SECONDS = 15
AT_ONCE = 500


@dataclass(frozen=True)
class Row:
    """What was done, what was seen, and whether that is what must be."""

    done: str
    seen: str
    good: bool


def load() -> Iterator[Row]:
    most = render.most_requests(faults.planned(MODEL))
    faults.streams(MODEL, AT_ONCE)  # so that memory is compared after the first load
    before = faults.memory()
    outcomes = faults.streams(MODEL, AT_ONCE)
    right = sum(outcome.right for outcome in outcomes)
    refused = [outcome for outcome in outcomes if outcome.status == 503]
    yield Row(
        f"{AT_ONCE} streams at once, of which {most} have a place",
        f"{right} answered to the letter, {len(refused)} refused with 503 and Retry-After, "
        f"{AT_ONCE - right - len(refused)} otherwise",
        right + len(refused) == AT_ONCE and all(outcome.retry_after for outcome in refused),
    )
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    grown = faults.memory() / before - 1
    right = sum(outcome.right for outcome in faults.streams(MODEL, 8))
    yield Row(
        "and afterwards",
        f"nothing runs or waits, {right} of 8 questions are answered to the letter, memory "
        f"{grown:+.1%}",
        right == 8 and grown < 0.1,
    )
    outcomes = faults.with_retries(MODEL, 300)
    right = sum(outcome.right for outcome in outcomes)
    slowest = max(outcome.seconds for outcome in outcomes)
    yield Row(
        "300 streams at once by OpenAI's client, which retries by itself",
        f"{right} answered to the letter, the last after {slowest:.0f} s",
        right == 300,
    )


def leaves() -> Iterator[Row]:
    def row(stage: str, **more: Any) -> Row:
        seconds = max(faults.leave(MODEL, stream=stream, **more) for stream in (True, False))
        done = f"A client leaves while its request is {stage}"
        return Row(done, f"its place is free after {seconds:.2f} s", seconds < 1)

    yield row("answered")
    long = [{"role": "user", "content": "What is the Mistral wind? " * 4000}]
    yield row("tokenized and prefilled", messages=long)
    with faults.crowd(MODEL, faults.planned(MODEL).max_num_seqs):
        yield row("queued")


def hangs() -> Iterator[Row]:
    for first, when in ((False, "under 8 streams"), (True, "before its first request")):
        hang = faults.hang(MODEL, first=first)
        broken = sum(outcome.status != 200 for outcome in hang.outcomes)
        yield Row(
            f"The engine is held {when} (SIGSTOP), with {STALL_SECONDS} s to show progress",
            f"liveness and readiness fail after {hang.seen_after:.1f} s",
            hang.seen_after < STALL_SECONDS + 3 and hang.readiness == 503,
        )
        yield Row(
            "and let go (SIGCONT)",
            f"liveness is well after {hang.well_after:.1f} s; {broken} of the "
            f"{len(hang.outcomes)} streams broke",
            broken == 0,
        )


def kills() -> Iterator[Row]:
    for model, who in (
        (MODEL, ENGINE),
        (TENSOR_PARALLEL, WORKER),
        (MODEL, API_SERVER),
        (MODEL, NGINX),
    ):
        with faults.server(model) as server:
            killed = faults.kill(server, who)
        yield Row(
            f"kill -9 of {who}, under 4 streams",
            f"nothing of the container is left after {killed.ended_after:.1f} s; the streams: "
            f"{shown(killed.outcomes)}",
            killed.ended_after < END_SECONDS,
        )


def nginx_workers() -> Iterator[Row]:
    seconds, outcomes = faults.kill_nginx_worker(MODEL)
    yield Row(
        "kill -9 of nginx's worker processes, under 4 streams",
        f"answers again after {seconds:.1f} s; the streams: {shown(outcomes)}",
        seconds < END_SECONDS,
    )


def drains() -> Iterator[Row]:
    with faults.server(MODEL, drain_seconds=300) as server:
        stopped = faults.drain(server)
    right = sum(outcome.right for outcome in stopped.outcomes)
    yield Row(
        f"SIGTERM to vLLM alone, under {len(stopped.outcomes)} streams, with time to finish",
        f"{right} end whole and to the letter; ended after {stopped.ended_after:.1f} s",
        right == len(stopped.outcomes),
    )
    yield Row(
        "meanwhile",
        f"a new request is a {stopped.refused.status} with Retry-After "
        f"{stopped.refused.retry_after}, readiness {stopped.readiness}, liveness "
        f"{stopped.liveness}",
        (stopped.refused.status, stopped.readiness, stopped.liveness) == (503, 503, 200),
    )
    with faults.server(MODEL) as server:
        stopped = faults.drain(server, tokens=30000)
    yield Row(
        "and under streams that take longer than the card gives them",
        f"nothing is left after {stopped.ended_after:.1f} s; the streams: "
        f"{shown(stopped.outcomes)}",
        stopped.ended_after < END_SECONDS,
    )


def stops(server: Server) -> Iterator[Row]:
    seconds, outcomes = faults.stop(server)
    yield Row(
        "SIGTERM to the container, under 4 streams",
        f"nothing is left after {seconds:.1f} s; the streams: {shown(outcomes)}",
        seconds < END_SECONDS,
    )


def everything() -> Iterator[tuple[str, Iterator[Row]]]:
    """Section by section, with as few containers as there can be."""
    with faults.server(MODEL, stall_seconds=STALL_SECONDS):
        yield "Load", load()
        yield "A client that leaves", leaves()
        yield "An engine that hangs", hangs()
    with faults.server(MODEL) as server:
        yield "A part that is killed", nginx_workers()
        yield "A stop", stops(server)
    yield "A stop", drains()
    yield "A part that is killed", kills()


def shown(outcomes: Sequence[Outcome]) -> str:
    """How broken streams ended, for a table."""

    def kind(outcome: Outcome) -> str:
        if outcome.status == 0:
            return "cut off"
        return "ended by an error event" if '"error"' in outcome.said else "ended without an error"

    counts = Counter(kind(outcome) for outcome in outcomes)
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def page(found: dict[str, list[Row]], about: str) -> str:
    """The page, from what was seen."""
    lines = [
        "# What it withstands",
        "",
        "Made by `make withstands`, which does all of this to the local container,",
    ]
    lines += [
        "through nginx, and writes what it saw. The tests do the same and hold it to its promises."
    ]
    lines += [about, "Times are of that machine and the stand-ins, never of a GPU."]
    for title, rows in found.items():
        lines += ["", f"## {title}", "", "| done | seen |", "| --- | --- |"]
        lines += [
            f"| {row.done} | {'' if row.good else '**not as it must be:** '}{row.seen} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make withstands", description=__doc__.splitlines()[0])
    parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop unwinds, and ends the server
    found: dict[str, list[Row]] = {}
    try:
        serve.check_machine({"nginx": serve.NGINX_PORT, "vLLM": render.PORT})
        for title, rows in everything():
            for row in rows:
                found.setdefault(title, []).append(row)
                print(f"{row.done}: {row.seen}", flush=True)
    except serve.CannotServeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing was written", file=sys.stderr)
        return 130
    about = (
        f"Machine: {machine()}. vLLM {render.vllm_version()} on CPU, the stand-ins of {MODEL} and "
        f"{TENSOR_PARALLEL}, commit {commit()}, {time.strftime('%Y-%m-%d')}."
    )
    PAGE.write_text(page(found, about), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0 if all(row.good for rows in found.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

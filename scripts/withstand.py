"""Does to a container what docs/withstands.md lists, and writes the page with what was seen.

Promises: each line of a table was done in this run, to the real container, by
tests/support/faults.py, which the tests use too. A line that did not come out as it must is marked,
and ends the command with status 1. Times are of this machine and its stand-ins.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.config import PORT, most_requests, vllm_version
from deploy.paths import ROOT
from local.truss import NGINX_PORT, URL, CannotServeError, check_machine
from scripts.bench import commit, machine
from tests.support import faults, hostile
from tests.support.faults import (
    API_SERVER,
    AT_ONCE,
    END_SECONDS,
    ENGINE,
    NGINX,
    STALL_SECONDS,
    WORKER,
    Outcome,
    Server,
)
from tests.support.hostile import answers
from tests.support.hostile.case import CHAT, Case, user
from tests.support.image_host import bomb, data_url, serving

PAGE = ROOT / "docs" / "withstands.md"
MODEL = "mistral-7b"
SEES = "pixtral-12b"
TENSOR_PARALLEL = "mixtral-8x7b"  # its engine has workers of its own


@dataclass(frozen=True)
class Row:
    """What was done, what was seen, and whether that is what must be."""

    done: str
    seen: str
    good: bool


def afterwards(model: str, before: int) -> Row:
    """Whether all is as before, when the container had so many bytes of memory."""
    faults.wait(lambda: faults.running() + faults.waiting() == 0)
    grown = faults.memory() / before - 1
    right = sum(outcome.right for outcome in faults.streams(model, 8))
    return Row(
        "and afterwards",
        f"nothing runs or waits, {right} of 8 questions are answered to the letter, memory "
        f"{grown:+.1%}",
        right == 8 and grown < 0.1,
    )


def bad_requests() -> Iterator[Row]:
    before = faults.memory()
    got = list(answers.one_at_a_time(hostile.cases(MODEL), URL))
    answered = sum(answer.status < 400 for answer in got)
    wrong = len(answers.faults(got))
    times = answers.refusals(got)
    yield Row(
        f"{len(got)} malformed and hostile requests, one at a time",
        f"{times.count} refused with a 4xx (the middle one after {times.median * 1000:.0f} ms, 99 "
        f"of 100 within {times.p99:.2f} s, the slowest after {times.most:.2f} s), {answered} "
        f"answered, {wrong} otherwise",
        wrong == 0 and times.most < answers.SOON_SECONDS,
    )
    yield afterwards(MODEL, before)


def images() -> Iterator[Row]:
    with (
        serving() as host,
        faults.server(SEES, variables={"ALLOWED_IMAGE_ADDRESSES": f"127.0.0.1:{host.port}"}),
        answers.client(URL) as client,
    ):
        seconds = max(
            faults.leave_during_download(host.url("/silent"), stream=stream)
            for stream in (True, False)
        )
        yield Row(
            "A client leaves while an image is downloaded",
            f"its place is free after {seconds:.2f} s",
            seconds < 1,
        )
        metadata = "http://169.254.169.254/latest/meta-data/"
        before = faults.memory()
        for what, url, most in (
            ("at a loopback address", "http://127.0.0.1/a.png", 1),
            (
                "at an address that redirects to the metadata service",
                host.url(f"/to/{metadata}"),
                1,
            ),
            ("in a file of the server, file:///etc/passwd", "file:///etc/passwd", 1),
            ("of 30000 × 30000 pixels", data_url(bomb(30_000, 30_000)), 1),
            ("without an end", host.url("/endless"), 5),
            ("that comes a byte at a time, which has 10 s", host.url("/drip"), 13),
        ):
            part = {"type": "image_url", "image_url": {"url": url}}
            body = json.dumps({"messages": user([part]), "max_tokens": 8}).encode()
            answer = answers.asked(Case(what, CHAT, body), client)
            yield Row(
                f"An image {what}",
                f"{answer.status} after {answer.seconds:.2f} s",
                answer.status == 400 and not answers.fault(answer) and answer.seconds < most,
            )
        yield afterwards(SEES, before)


def load() -> Iterator[Row]:
    most = most_requests(faults.plan_of(MODEL))
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
    yield afterwards(MODEL, before)
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
    with faults.crowd(MODEL, faults.plan_of(MODEL).max_num_seqs):
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
            killed.ended_after < END_SECONDS and faults.broken_off(killed.outcomes, 4),
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
        stopped.ended_after < END_SECONDS and faults.broken_off(stopped.outcomes, 8),
    )


def stops(server: Server) -> Iterator[Row]:
    seconds, outcomes = faults.stop(server)
    yield Row(
        "SIGTERM to the container, under 4 streams",
        f"nothing is left after {seconds:.1f} s; the streams: {shown(outcomes)}",
        seconds < END_SECONDS and faults.broken_off(outcomes, 4),
    )


def everything() -> Iterator[tuple[str, Iterator[Row]]]:
    """Section by section, with as few containers as there can be."""
    with faults.server(MODEL, stall_seconds=STALL_SECONDS):
        yield "Bad requests", bad_requests()
        yield "Load", load()
        yield "A client that leaves", leaves()
        yield "An engine that hangs", hangs()
    with faults.server(MODEL) as server:
        yield "A part that is killed", nginx_workers()
        yield "A stop", stops(server)
    yield "A stop", drains()
    yield "A part that is killed", kills()
    yield "Bad images", images()


def shown(outcomes: Sequence[Outcome]) -> str:
    """How broken streams ended, for a table."""
    counts = Counter(map(faults.ending, outcomes))
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
        check_machine({"nginx": NGINX_PORT, "vLLM": PORT})
        for title, rows in everything():
            for row in rows:
                found.setdefault(title, []).append(row)
                print(f"{row.done}: {row.seen}", flush=True)
    except CannotServeError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing was written", file=sys.stderr)
        return 130
    about = (
        f"Machine: {machine()}. vLLM {vllm_version()} on CPU, the stand-ins of {MODEL}, "
        f"{TENSOR_PARALLEL} and {SEES}, commit {commit()}, {time.strftime('%Y-%m-%d')}."
    )
    PAGE.write_text(page(found, about), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0 if all(row.good for rows in found.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

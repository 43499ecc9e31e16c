"""This Truss against the older ways to serve the same model: a part of `make bench`.

Promises: the same weights, prompts and arithmetic for all; each has answered to the letter before
anything is measured; they take turns, piece by piece. A server whose turn it is not stands still,
and the CPU time it takes meanwhile is measured. Nothing that was started is left.
"""

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from bench import backends, load, peer, processes
from bench.backends import Send
from bench.errors import BenchError
from bench.figures import (
    DTYPE,
    Bounds,
    Figures,
    Load,
    Way,
    at,
    figure_table,
    head,
    ratio,
    ratio_table,
    row,
    turned,
)
from bench.load import VLLM, Asked, Bench
from bench.peer import Peer
from bench.plots import Plot, link, throughput_and_ttft
from bench.processes import CPU, Meter
from bench.session import Session
from bench.switch import BARE as BARE_DOOR
from local.standins.corpus import chat, dialogues
from scripts import cards, serve, standin

MODEL = "mixtral-8x7b"  # of the stand-ins, transformers reads only this one's format
MODELS = (MODEL,)  # of `make bench MODEL=`, which leaves this part out for others
ANSWER_TOKENS = 100  # more than the answer that is checked has

# What mistral-common makes of a question for this model. The older ways take a prompt as it comes:
# their users wrote this themselves.
PROMPT = "<s> [INST] {} [/INST]"


def async_llm_body(prompt: str, tokens: int, to_the_last: bool) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": to_the_last}


def generate_body(prompt: str, tokens: int, to_the_last: bool) -> dict[str, Any]:
    body = {"prompt": prompt, "stream": True, "max_new_tokens": tokens, "do_sample": False}
    return {**body, "min_new_tokens": tokens} if to_the_last else body


ASYNC_LLM = Peer("Truss's Python server, vLLM's AsyncLLM", "async_llm", 8101, async_llm_body)
GENERATE = Peer("Truss's Python server, transformers' generate", "generate", 8102, generate_body)
PEERS = {it.name: it for it in (ASYNC_LLM, GENERATE)}

THIS = Way("this Truss, older shape", backends.TEXT, f"{serve.URL}/predict")
OPENAI = Way("this Truss, OpenAI's shape", backends.CHAT, f"{serve.URL}{load.CHAT}")
BARE = Way("bare vLLM", backends.CHAT, f"{VLLM}{BARE_DOOR}{load.CHAT}")
WAYS = (THIS, OPENAI, BARE, *(Way(it.name, it.folder, it.predict) for it in PEERS.values()))


@dataclass(frozen=True)
class Plan:
    rounds: int
    loads: tuple[Load, ...]
    generate: tuple[Load, ...]  # it is so slow that it gets less to do, and the same at a time
    seconds: float  # of a round, about

    def load(self, way: Way, streams: int) -> Load | None:
        """What a way is given at so many streams; nothing where that would take too long."""
        loads = self.generate if way.name == GENERATE.name else self.loads
        return next((it for it in loads if it.streams == streams), None)


FULL = Plan(
    5,
    (Load(1, 8, 128), Load(4, 16, 128), Load(16, 64, 128), Load(32, 64, 128), Load(64, 128, 128)),
    (Load(1, 2, 128), Load(4, 4, 128), Load(16, 16, 128), Load(32, 32, 128)),
    95,
)
QUICK = Plan(2, (Load(1, 4, 16), Load(16, 48, 32)), (Load(1, 2, 16), Load(16, 16, 32)), 15)
# of each server whose turn comes, before it is measured
WAKING = Load(1, 1, 4)
WARM_UP = Plan(1, (Load(64, 64, 16),), (Load(64, 2, 16),), 0)


@dataclass(frozen=True)
class Goal(Bounds):
    """What a figure of this Truss in the older shape is to be, as a ratio to an older way's."""

    text: str
    figure: str
    streams: tuple[int, ...]
    to: str


STREAMS = tuple(it.streams for it in FULL.loads)
GOALS = (
    Goal("output tokens/s: at least 1.00", "tokens_per_s", STREAMS[:-1], ASYNC_LLM.name, least=1.0),
    Goal("output tokens/s: above 1.00", "tokens_per_s", STREAMS[-1:], ASYNC_LLM.name, least=1.005),
    Goal("median TTFT: below 1.00", "ttft_p50_ms", STREAMS, ASYNC_LLM.name, most=0.995),
    Goal("output tokens/s: at least 30", "tokens_per_s", (16,), GENERATE.name, least=30.0),
)


def measure(model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    if model not in (None, MODEL):
        raise BenchError(
            f"transformers cannot read the stand-in of {model}, which is in Mistral's own format; "
            f"the older ways are compared with MODEL={MODEL}"
        )
    plan = QUICK if quick else FULL
    with session.expecting(plan.rounds, plan.seconds):
        if session.lacks(MODEL, plan.rounds):
            session.doing("starting this Truss and the older ways")
            with running() as servers:
                for way in WAYS:
                    check(way)
                benches = each_bench(servers)
                session.doing("warming up")
                measure_round(benches, servers, WARM_UP, 0)
                session.each(
                    MODEL, plan.rounds, lambda number: measure_round(benches, servers, plan, number)
                )
    rounds = session.done[MODEL]
    return {
        "model": MODEL,
        "loads": [asdict(it) for it in plan.loads],
        "generate": [asdict(it) for it in plan.generate],
        "rounds": [done["figures"] for done in rounds],
        "held": [done["held"] for done in rounds],
    }


Servers = Mapping[str, Sequence[int]]  # the process ids of each, by its name
TRUSS = "this Truss"


@contextlib.contextmanager
def running() -> Iterator[Servers]:
    """This Truss and the older ways, all ready; they start at the same time."""
    card = cards.load(MODEL)
    checkpoint = standin.ensure(card, console=load.console)
    with contextlib.ExitStack() as stack:
        starting = [stack.enter_context(peer.started(it, checkpoint)) for it in PEERS.values()]
        stack.enter_context(load.server(card))
        for it in starting:
            it.wait()
        found = {it.peer.name: processes.family(it.process.pid) for it in starting}
        others = {pid for pids in found.values() for pid in pids} | {os.getpid()}
        this = [pid for pid in processes.family(os.getpid()) if pid not in others]
        yield {TRUSS: this, **found}


def each_bench(servers: Servers) -> dict[str, Bench]:
    """By the server's name: it asks for the metrics of what it measures, and must not wait for a
    server that stands still."""
    card = cards.load(MODEL)
    benches = {TRUSS: Bench(card, MODEL)}
    for it in PEERS.values():
        benches[it.name] = Bench(card, MODEL, it.url)
        benches[it.name].table[it.folder] = asking(it)
    for name, pids in servers.items():
        benches[name].meter = Meter([*pids, os.getpid()])
    return benches


def asking(of: Peer) -> Send:
    """A backend of `vllm bench serve` for a peer."""

    async def ask(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
        given = request_func_input
        body = of.body(PROMPT.format(given.prompt), given.output_len, given.ignore_eos)
        return await backends.streamed(body, given, session, pbar)

    return ask


def measure_round(
    benches: Mapping[str, Bench], servers: Servers, plan: Plan, number: int
) -> dict[str, Any]:
    """`figures` by streams and way, and of all others' turns together the CPU time in s that each
    server took while it was `held`."""
    figures: dict[str, dict[str, Figures]] = {}
    held = dict.fromkeys(servers, 0.0)
    for streams in (it.streams for it in plan.loads):
        loads = {way: given for way in WAYS if (given := plan.load(way, streams))}
        asked: dict[str, list[Asked]] = {way.name: [] for way in loads}
        for place, pieces in enumerate(zip_longest(*(it.pieces for it in loads.values()))):
            for way, piece in turned([*zip(loads, pieces, strict=True)], number + place):
                if piece is None:  # some have less to do
                    continue
                name = way.name if way.name in PEERS else TRUSS
                others = {server: pids for server, pids in servers.items() if server != name}
                with still(others, held):
                    benches[name].asked(way, WAKING)
                    asked[way.name].append(benches[name].asked(way, piece))
        figures[str(streams)] = {name: load.figures(pieces) for name, pieces in asked.items()}
    return {"figures": figures, "held": held}


@contextlib.contextmanager
def still(servers: Servers, took: dict[str, float]) -> Iterator[None]:
    """The servers stand still; CPU time they take all the same is added to what each `took`."""
    with processes.held(pid for pids in servers.values() for pid in pids):
        before = {name: processes.cpu_seconds(pids) for name, pids in servers.items()}
        yield
        for name, pids in servers.items():
            took[name] += processes.cpu_seconds(pids) - before[name]


def check(way: Way) -> None:
    """`BenchError` unless the answer to a question of the stand-in's is right to the letter."""
    messages, answer = chat(dialogues(images=False)["mistral_wind"])
    question = messages[0]["content"]
    if way.name in PEERS:
        body = PEERS[way.name].body(PROMPT.format(question), ANSWER_TOKENS, False)
    elif way is THIS:
        body = {"prompt": question, "stream": True, "temperature": 0}
    else:
        body = {"messages": messages, "temperature": 0}
    request = urllib.request.Request(
        way.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with serve.DIRECTLY.open(request, timeout=120) as response:
            got = response.read().decode()
    except OSError as error:
        raise BenchError(f"{way.name} does not answer: {error}") from error
    if way.backend == backends.CHAT:
        got = json.loads(got)["choices"][0]["message"]["content"].strip()
    if got != answer:
        raise BenchError(f"{way.name} answers {got!r}, not {answer!r}")


TEXT = f"""\
The two older ways are Trusses of our own, in `bench/peers`, made like those of Baseten's examples
whose place this Truss has: a `model.py` around vLLM's AsyncLLM (Mixtral's), and one around
transformers' `generate` with a text streamer in a thread (Mistral 7B's). Each runs in Truss's own
Python server, laid out by Truss's builder, as a process here. All have the same stand-in in
{DTYPE}, greedy decoding, and random prompts of as many tokens, those with vLLM the variables of
`local/environment.yaml`, and have answered a question to the letter first. They take turns after
two requests a stream; those whose turn it is not are stopped (SIGSTOP), and a request that is not
counted comes first.

In the older ways' favour: vLLM and transformers are today's; nothing is sampled, which costs
`generate` more than vLLM; prompts come with their template, so that nothing is left to do with
them; there is no nginx. As it was: `predict_concurrency`, which is 128 for AsyncLLM and for
`generate` Truss's default, one request at a time; outputs of AsyncLLM that each hold all text so
far, from which the new is cut; Hugging Face's tokenizer. Not as it was: `generate` served a dense
model, in float16, on a GPU, and its stream began with the prompt, which is left out here, so that
the first token is one of the answer's. It gets fewer requests, of as many tokens, and at most 32
streams.

Bare vLLM stands here to tell apart what this Truss loses: what bare vLLM has and this Truss has not
is nginx's, which is Truss's own, and that of the classes of `packages/predict`; what AsyncLLM's way
has beyond bare vLLM is the chat route's, which makes an object and JSON of each token, and turns
those of Mistral's tokenizer into text in Python, those of Hugging Face's in Rust. All of it goes on
beside the engine where that has a GPU; here it takes the engine's cores.

Thirty times the tokens/s of `generate` at 16 streams would need a step for 16 streams in half the
time that `generate` takes for one. Here a step of either is mostly Python, and takes about as long
(ITL at one stream, and at 16); on a GPU it is mostly the model's, which 16 streams share.
"""


def section(results: Mapping[str, Any]) -> list[str]:
    """The part's lines of docs/benchmarks.md."""
    rounds, names = results["rounds"], [way.name for way in WAYS]
    return [
        "## Against the older ways",
        "",
        *TEXT.splitlines(),
        "",
        *goal_table(rounds),
        "",
        link("throughput and TTFT over streams", PLOT),
        "",
        f"{len(rounds)} rounds, each way in each {work(results['loads'])};",
        f"`generate` {work(results['generate'])}:",
        "",
        *figure_table(rounds, names),
        "",
        f"{THIS.name}, as a ratio to each other way in the same round:",
        "",
        *ratio_table(rounds, "to", {to: (THIS.name, to) for to in names[1:]}, ["requests_per_s"]),
        "",
        "CPU time, µs a token:",
        "",
        *figure_table(rounds, names, CPU),
        "",
        *held_lines(results["held"]),
    ]


def work(loads: Sequence[Mapping[str, Any]]) -> str:
    each = (f"{it['requests']} of {it['new_tokens']} new tokens at {it['streams']}" for it in loads)
    return f"{', '.join(each)} streams"


def goal_table(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = head(f"goal, {THIS.name} to an older way in the same round", "streams", "to", "is", "")
    for goal in GOALS:
        for streams in goal.streams:
            if str(streams) in rounds[0]:
                found = ratio(at(rounds, streams), THIS.name, goal.to, goal.figure)
                lines.append(row(goal.text, streams, goal.to, found.shown(2), goal.met(found)))
    return lines


def held_lines(held: Sequence[Mapping[str, float]]) -> list[str]:
    took = [f"{sum(done[name] for done in held):.2f} s {name}" for name in held[0]]
    return [
        "CPU time of the servers while they stood still, in all rounds together:",
        f"{', '.join(took)}.",
    ]


PLOT = f"older-{MODEL}.svg"


def plots(results: Mapping[str, Any]) -> dict[str, Plot]:
    """Plots by the names of their files."""
    panels = throughput_and_ttft(results["rounds"], {way.name: way.name for way in WAYS})
    return {PLOT: Plot(f"{MODEL}, against the older ways", panels)}

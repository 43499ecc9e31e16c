"""Measures any deployment, by its URL: `make bench URL=… MODEL=…`.

Promises: `vllm bench serve` sends requests as OpenAI's clients do; the key comes from the
environment and goes only into the requests' header. Refuses, in one line that says what to do, an
address that is invalid or does not answer, a missing or rejected key, and failed requests.
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench import backends
from bench.client import Bench
from bench.errors import BenchError
from bench.metrics import METRICS, Load, Way, at, of
from bench.part import Results
from bench.plots import Plot, link, panel
from bench.session import Session, file_name
from deploy import baseten, cards
from deploy.cards import Card
from deploy.markdown import row, table

CHAT = "/chat/completions"
PREDICT = "/predict"
# vLLM's client builds the Authorization header from this variable
VLLM_KEY = "OPENAI_API_KEY"
# The first answer may wait for a replica. https://docs.baseten.co/deployment/autoscaling/request-lifecycle
PATIENCE_SECONDS = 1200.0
CONNECT_SECONDS = 15.0

ROUNDS = 3
LOADS = tuple(Load(streams, max(8, 3 * streams), 64, 128) for streams in (1, 4, 16, 64))
QUICK_LOADS = tuple(Load(streams, max(8, 2 * streams), 16, 64) for streams in (1, 16))
IMAGE_BYTES = 10_000
PLOT = "deployment.svg"
WAY = "deployment"


@dataclass(frozen=True)
class Target:
    """`base` is base_url in OpenAI's clients; `key` is None if none is needed."""

    base: str
    key: str | None

    @property
    def name(self) -> str:
        """The address, in a form that can be a file name."""
        return file_name(self.base.partition("://")[2])


def target(url: str, environment: Mapping[str, str] = os.environ) -> Target:
    """The routes of a deployment, from any of its addresses that users know."""
    parts = urlsplit(baseten.checked_address(url, "URL"))
    if parts.query or parts.fragment or parts.username or parts.password:
        raise BenchError("URL= takes an address alone: no key, query or fragment belongs in it")
    local = parts.hostname in baseten.THIS_MACHINE
    path = parts.path.rstrip("/").removesuffix(CHAT)
    if path.endswith(PREDICT):  # Baseten serves the other routes under /sync
        path = path.removesuffix(PREDICT) + ("" if local else "/sync")
    if "v1" not in path.split("/"):
        path += "/v1"
    wanted = bool(environment.get(baseten.KEY)) or not local
    key = baseten.api_key(environment) if wanted else None
    return Target(parts._replace(path=path).geturl(), key)


def served(target: Target, model: str | None) -> tuple[Card, str]:
    """The card of the deployed model, and the deployment's name for it, which may be given; it has
    answered to that name once."""
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    timeout = httpx.Timeout(PATIENCE_SECONDS, connect=CONNECT_SECONDS)
    with httpx.Client(headers=headers, timeout=timeout) as client:
        listed = _checked(target, lambda: client.get(f"{target.base}/models"), unless=404)
        try:
            names = [str(model["id"]) for model in listed.json()["data"]]
        except (ValueError, KeyError, TypeError):  # not all gateways forward this route
            names = []
        known = next((it for it in cards.names() if it in names), None)
        if model and known and model != known:
            raise BenchError(f"{target.base} serves {known}, not {model}; use MODEL={known}")
        card = cards.load(model or known or cards.DEFAULT_MODEL)
        name = card.name if card.name in names or not names else names[0]
        message = {"role": "user", "content": "Hello"}
        asked = {"model": name, "messages": [message], "max_tokens": 1}
        _checked(target, lambda: client.post(f"{target.base}{CHAT}", json=asked))
    return card, name


def _checked(
    target: Target, ask: Callable[[], httpx.Response], unless: int = 200
) -> httpx.Response:
    """The answer, if its status is 200 or `unless`."""
    try:
        response = ask()
    except httpx.TransportError as error:
        raise baseten.unreachable(target.base, error) from error
    if response.status_code in (401, 403) and not target.key:
        raise BenchError(f"{target.base} wants a key: export {baseten.KEY}")
    if response.status_code not in (200, unless):
        raise baseten.refusal(response, str(response.url))
    return response


@contextlib.contextmanager
def key_for_vllm(key: str | None) -> Iterator[None]:
    """Sets the key where vLLM's client looks for one, until the end of the block; no other key."""
    before = os.environ.pop(VLLM_KEY, None)
    if key:
        os.environ[VLLM_KEY] = key
    try:
        yield
    finally:
        os.environ.pop(VLLM_KEY, None)
        if before is not None:
            os.environ[VLLM_KEY] = before


def measure(where: Target, model: str | None, quick: bool, session: Session) -> dict[str, Any]:
    rounds = 1 if quick else ROUNDS
    session.say("asking what it serves; a replica may have to start first")
    card, name = served(where, model)
    loads = QUICK_LOADS if quick else LOADS
    if card.features.images:
        loads = tuple(replace(it, images=1, image_bytes=IMAGE_BYTES) for it in loads)
    bench = Bench(card, name, where.base, CHAT)
    # prompts of an earlier run may still be in the prefix cache
    bench.seed_from(random.SystemRandom().randrange(2**30))
    way = Way(WAY, backends.CHAT, f"{where.base}{CHAT}")

    def one_round(number: int) -> dict[str, Any]:
        found = {}
        for it in loads:
            session.say(f"{where.name}: round {number + 1} of {rounds}, {it.streams} streams")
            found[str(it.streams)] = bench.under([way], it)
        return found

    with key_for_vllm(where.key):
        bench.warm_up([way], loads[0])
        found = session.each(where.name, rounds, one_round)
    return {
        "url": where.base,
        "asked_for": name,
        "model": card.name,
        "loads": [asdict(it) for it in loads],
        "rounds": found,
    }


def page(results: Results) -> str:
    """The page of a deployment."""
    first, rounds = results["loads"][0], results["rounds"]
    image = f" and an image of {first['image_bytes']:,} bytes" if first["images"] else ""
    rows = []
    for streams in rounds[0]:
        points = at(rounds, streams)
        cells = (of(points, WAY, name).shown(digits) for name, (_, digits) in METRICS.items())
        rows.append(row(streams, *cells))
    return f"""## {results["url"]}

Asked for `{results["asked_for"]}`; rounds: {len(rounds)}.
Prompts of {first["prompt_tokens"]} tokens{image}, {first["new_tokens"]} new tokens.
A figure is a median, with the least and the most in brackets.

{link("throughput and TTFT over streams", PLOT)}

{table(["streams", *(title for title, _ in METRICS.values())], rows)}
"""


def plots(results: Results) -> dict[str, Plot]:
    panels = (
        panel("output tokens/s", "tokens_per_s", results["rounds"], [WAY]),
        panel("median TTFT, ms", "ttft_p50_ms", results["rounds"], [WAY]),
    )
    return {PLOT: Plot(urlsplit(results["url"]).netloc, panels)}

"""The names at the top level of a request: known, mapped, ignored or refused.

Promises: pure functions, and the same rule on every route. An unknown name is ignored and listed in
`notes`, unless it is close to a known one: that is a misspelling, and gets a 400 with the
suggestion. A null, or a value that asks for nothing, counts as leaving the name out. Refuses names
that vLLM no longer acts on, names reserved for the engine or its operator, and state that is not
kept here.
"""

import difflib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from predict.errors import RequestError, shown
from predict.legacy.parameters import CHAT, GENERATE, LEGACY, OPENAI, REFUSED, REMOVED
from predict.requests.conversations.notes import Notes
from predict.requests.routes import CHAT_COMPLETIONS, COMPLETIONS

_TABLES = yaml.safe_load(Path(__file__).with_name("fields.yaml").read_text(encoding="utf-8"))
_ROUTES: dict[str, Any] = _TABLES["routes"]
KNOWN = {path: frozenset(row["vllm"] + row["other"]) for path, row in _ROUTES.items()}
KNOWN[CHAT_COMPLETIONS] = CHAT | LEGACY
NOT_ACTED_ON = {path: frozenset(row["other"]) for path, row in _ROUTES.items()}
NOT_ACTED_ON[CHAT_COMPLETIONS] = OPENAI
NOT_NULL = {path: frozenset(names) for path, names in _TABLES["not_null"].items()}
MISTRAL: dict[str, str | None] = _TABLES["mistral"]
LOOKALIKES = frozenset(_TABLES["lookalikes"])
TAKEN_OUT = frozenset(_TABLES["taken_out"])
STORED: dict[str, str] = _TABLES["stored"]

CUTOFF = 0.85  # similarity from which two names count as the same
MOST_COMPARED = 64  # unknown names of a request that are checked for misspelling; half a ms each
SPECIAL = frozenset([*MISTRAL, *TAKEN_OUT, *REMOVED, *REFUSED, *STORED])
# Names that vLLM reads, whatever their values.
PLAIN = {
    path: known - SPECIAL - NOT_ACTED_ON[path] - {"generation_config", "inputs", "input", "text"}
    if path in (CHAT_COMPLETIONS, COMPLETIONS)
    else known - SPECIAL - NOT_ACTED_ON[path]
    for path, known in KNOWN.items()
}
NEUTRAL: tuple[Any, ...] = (None, False, 0, "", [], {}, "auto", "default", ["text"], "in_memory")

Body = dict[str, Any]


def settled(path: str, body: Body, notes: Notes) -> Body:
    """The body with the names that vLLM is to see; the same object if it has no others."""
    body = _without_empty_stops(body)
    if PLAIN[path].issuperset(body) and None not in body.values():
        return body  # like almost every request
    known = KNOWN[path]
    if path in (CHAT_COMPLETIONS, COMPLETIONS):
        _refuse_other_shapes(body)
    if not known.issuperset(body) or not SPECIAL.isdisjoint(body):
        body = _without_unknown(path, body, known, notes)
    for name, value in body.items():
        if name in NOT_ACTED_ON[path] and value not in NEUTRAL:
            notes.add(name)
    not_null = NOT_NULL[path]
    if nulls := [name for name, value in body.items() if value is None and name in not_null]:
        body = {name: value for name, value in body.items() if name not in nulls}
    config = body.get("generation_config")
    if path == CHAT_COMPLETIONS and isinstance(config, dict) and config.keys() - GENERATE:
        body = {**body, "generation_config": _config(config, notes)}
    return body


def _without_empty_stops(body: Body) -> Body:
    """Removes empty stop strings, which ask for nothing."""
    for name in ("stop", "stop_sequences"):
        stops = body.get(name)
        if stops == "" or (isinstance(stops, list) and any(stop in ("", None) for stop in stops)):
            kept = [stop for stop in stops if stop not in ("", None)]
            body = {**body, name: kept}
    return body


def _without_unknown(path: str, body: Body, known: frozenset[str], notes: Notes) -> Body:
    dropped = []
    added: Body = {}
    unknown = 0
    for name, value in body.items():
        if name in REMOVED and value is not None:
            raise RequestError(
                f"'{name}' has no effect on vLLM since its 0.12; use {REMOVED[name]}", name
            )
        if name in MISTRAL and name not in known:
            other = MISTRAL[name]
            if value is None:
                continue
            if other in known and body.get(other) is None:
                dropped.append(name)
                added[other] = value
            elif other is not None or value not in NEUTRAL:
                notes.add(name)
        elif name in TAKEN_OUT:
            dropped.append(name)
            if value is not None:
                notes.add(name)
        elif name in REFUSED:
            if value not in NEUTRAL:
                raise RequestError(
                    f"'{name}' cannot be set by clients: {REFUSED[name]}; leave it out", name
                )
        elif name in STORED:
            if value not in NEUTRAL:
                raise RequestError(
                    f"'{name}' is {shown(value)}, and nothing is stored here: {STORED[name]}", name
                )
        elif name not in known and value is not None:
            unknown += 1
            if unknown <= MOST_COMPARED and (close := nearest(name[:100], path)):
                raise RequestError(
                    f"'{name[:100]}' is not a known parameter; did you mean '{close}'?", name[:100]
                )
            notes.add(name)  # vLLM ignores it too
    if not dropped and not added:
        return body
    return {**{name: value for name, value in body.items() if name not in dropped}, **added}


def _config(config: Mapping[str, Any], notes: Notes) -> Body:
    """The entries of `generation_config` that are arguments of generate, or belong beside it."""
    kept = {}
    unknown = 0
    for name, value in config.items():
        if name in GENERATE or name in CHAT or name in REMOVED or name == "generation_config":
            kept[name] = value
            continue
        unknown += 1
        if unknown <= MOST_COMPARED and (close := nearest(name[:100], CHAT_COMPLETIONS)):
            raise RequestError(
                f"'generation_config.{name[:100]}' is not a known parameter; did you mean "
                f"'{close}'?",
                name[:100],
            )
        else:
            notes.add(f"generation_config.{name}")
    return kept


@functools.lru_cache(maxsize=1024)
def nearest(name: str, path: str) -> str | None:
    """The known name that this one misspells, if any. It is kept: give 100 characters at most."""
    if name in LOOKALIKES:
        return None
    plain = {_plain(known): known for known in sorted(KNOWN[path])}
    close = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=CUTOFF)
    close += [known for known in plain if sorted(known) == sorted(_plain(name))]
    close.sort(key=lambda found: found[0] != name[0].lower())  # most misspellings begin right
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    """A name in the form that is compared: maxNewTokens is max_new_tokens."""
    return name.lower().replace("_", "").replace("-", "")


def _refuse_other_shapes(body: Mapping[str, Any]) -> None:
    """Tells the sender of another platform's request, or of a client's argument, what to send."""
    if "extra_body" in body and isinstance(body["extra_body"], dict):
        raise RequestError(
            "'extra_body' is an argument of OpenAI's client, which sends its entries beside "
            f"'messages'; send {_listed(body['extra_body'])} there",
            "extra_body",
        )
    if body.get("messages") is not None or body.get("prompt") is not None:
        return
    value = body.get("input")
    if isinstance(value, dict):
        raise RequestError(
            f"'input' is an object, as RunPod takes it; send its entries, {_listed(value)}, as "
            "the request itself, with 'prompt' or 'messages' among them",
            "input",
        )
    for name in ("inputs", "input", "text", "query"):
        if isinstance(body.get(name), (str, list)):
            parameters = body.get("parameters")
            beside = ""
            if isinstance(parameters, dict):
                beside = f", and the entries of 'parameters', {_listed(parameters)}, beside it"
            raise RequestError(
                f"'{name}' is not taken here; send the text as 'prompt', or as the content of "
                f"'messages'{beside}",
                name,
            )


def _listed(names: Iterable[str]) -> str:
    every = [f"'{name[:30]}'" for name in names]
    return ", ".join(every[:4]) + (" …" if len(every) > 4 else "") if every else "(none)"

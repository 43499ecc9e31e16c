"""Settings of the middleware, from the environment variables that config.yaml sets.

Promises: a variable that is not set means the default in limits.yaml, or none; an empty one means
none. Refuses, at start-up, a variable that cannot be read or is below 0, with a `ValueError` that
names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from predict.requests.conversations.generations import DEFAULT, GENERATIONS, Generation, generation

# The most that one request may have, by the names in limits.yaml; None means no limit.
RequestLimits = Mapping[str, int | None]

_LIMITS = yaml.safe_load(Path(__file__).with_name("limits.yaml").read_text(encoding="utf-8"))
DEFAULT_LIMITS: RequestLimits = {name: row["default"] for name, row in _LIMITS.items()}


def variable(limit: str) -> str:
    """The environment variable for a limit."""
    return f"PREDICT_LIMIT_{limit.upper()}"


@dataclass(frozen=True)
class Settings:
    """Defaults for what a request leaves out, its limits, and when the engine counts as stalled."""

    max_new_tokens: int | None = None
    max_new_tokens_limit: int | None = None  # for requests in the legacy format
    sampling: dict[str, float] = field(default_factory=dict)  # temperature, top_p, top_k
    defaults_for_messages: bool = False  # for requests in the OpenAI format too
    stream_interval: int = 8  # the most tokens an event while many requests run (pacing.py)
    tokenizer: Generation = GENERATIONS[DEFAULT]  # what a conversation may have
    adapters: tuple[str, ...] = ()  # names that vLLM leaves out of its errors
    stall_seconds: float | None = None  # an engine with requests and no progress for so long hangs
    most_requests: int | None = None  # at a time, served and queued: packages/start/prepare.sh
    limits: RequestLimits = field(default_factory=lambda: DEFAULT_LIMITS)


def read(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`."""

    def value(name: str, kind: Callable[[str], Any]) -> Any:
        text = environment.get(name, "")
        try:
            number = kind(text) if text else None
        except ValueError:
            raise ValueError(f"{name} is {text!r}, which is not {kind.__name__}") from None
        least = -1 if name == "PREDICT_TOP_K" else 0  # -1: vLLM's way to say all tokens
        if number is not None and not number >= least:
            raise ValueError(f"{name} is {text!r}; it is at least {least}")
        return number

    kinds = {"temperature": float, "top_p": float, "top_k": int}
    sampling = {name: value(f"PREDICT_{name.upper()}", kind) for name, kind in kinds.items()}
    return Settings(
        max_new_tokens=value("PREDICT_MAX_NEW_TOKENS", int),
        max_new_tokens_limit=value("PREDICT_MAX_NEW_TOKENS_LIMIT", int),
        sampling={name: number for name, number in sampling.items() if number is not None},
        defaults_for_messages=bool(value("PREDICT_DEFAULTS_FOR_MESSAGES", int)),
        stream_interval=value("PREDICT_STREAM_INTERVAL", int) or Settings.stream_interval,
        tokenizer=generation(environment.get("PREDICT_TOKENIZER") or DEFAULT),
        adapters=tuple(filter(None, environment.get("PREDICT_ADAPTERS", "").split(","))),
        stall_seconds=value("PREDICT_STALL_SECONDS", float),
        most_requests=value("PREDICT_MOST_REQUESTS", int),
        limits={
            name: value(variable(name), int) if variable(name) in environment else default
            for name, default in DEFAULT_LIMITS.items()
        },
    )

"""What config.yaml sets for the classes, in environment variables made from the model's card.

Promises: a variable that is not set means none; one that cannot be read is a `ValueError` at start
that names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The most that one request may have of each; the card's `limits` (deploy/cards.py) says what
    each counts."""

    body_bytes: int | None = None
    text_bytes: int | None = None
    values: int | None = None
    depth: int | None = None
    messages: int | None = None
    parts: int | None = None
    prompts: int | None = None
    answers: int | None = None
    stop_strings: int | None = None
    string_length: int | None = None
    bad_words: int | None = None
    token_ids: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    tools: int | None = None
    schema_bytes: int | None = None
    schema_depth: int | None = None
    schema_entries: int | None = None
    schema_count: int | None = None
    regex_nested: int | None = None
    regex_overlapping: int | None = None
    grammar_bytes: int | None = None
    vocabulary: int | None = None  # tokens, from the card's architecture


def variable(limit: str) -> str:
    """The environment variable of a limit."""
    return f"PREDICT_LIMIT_{limit.upper()}"


@dataclass(frozen=True)
class Settings:
    """Defaults for what a request leaves out, tokens being new ones, and how the server is kept."""

    max_new_tokens: int | None = None
    max_new_tokens_limit: int | None = None  # for older-shaped requests
    sampling: dict[str, float] = field(default_factory=dict)  # temperature, top_p, top_k
    defaults_for_messages: bool = False  # for OpenAI-shaped requests too
    stall_seconds: float | None = None  # an engine with requests that does nothing so long, hangs
    limits: Limits = Limits()


def read(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`."""

    def value(name: str, kind: Callable[[str], Any]) -> Any:
        text = environment.get(name, "")
        try:
            return kind(text) if text else None
        except ValueError:
            raise ValueError(f"{name} is {text!r}, which is not {kind.__name__}") from None

    kinds = {"temperature": float, "top_p": float, "top_k": int}
    sampling = {name: value(f"PREDICT_{name.upper()}", kind) for name, kind in kinds.items()}
    return Settings(
        max_new_tokens=value("PREDICT_MAX_NEW_TOKENS", int),
        max_new_tokens_limit=value("PREDICT_MAX_NEW_TOKENS_LIMIT", int),
        sampling={name: number for name, number in sampling.items() if number is not None},
        defaults_for_messages=bool(value("PREDICT_DEFAULTS_FOR_MESSAGES", int)),
        stall_seconds=value("PREDICT_STALL_SECONDS", float),
        limits=Limits(**{row.name: value(variable(row.name), int) for row in fields(Limits)}),
    )

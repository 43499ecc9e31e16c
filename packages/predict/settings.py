"""What config.yaml sets for the class, in environment variables made from the model's card.

Promises: a variable that is not set means none; one that cannot be read is a `ValueError` at start
that names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Defaults for what a request leaves out; tokens are new ones."""

    max_new_tokens: int | None = None
    max_new_tokens_limit: int | None = None  # for older-shaped requests
    sampling: dict[str, float] = field(default_factory=dict)  # temperature, top_p, top_k
    defaults_for_messages: bool = False  # for OpenAI-shaped requests too


def read(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`."""

    def value(name: str, kind: Callable[[str], Any]) -> Any:
        text = environment.get(name, "")
        try:
            return kind(text) if text else None
        except ValueError:
            raise ValueError(f"{name} is {text!r}, which is not {kind.__name__}") from None

    sampling = {
        "temperature": value("PREDICT_TEMPERATURE", float),
        "top_p": value("PREDICT_TOP_P", float),
        "top_k": value("PREDICT_TOP_K", int),
    }
    return Settings(
        max_new_tokens=value("PREDICT_MAX_NEW_TOKENS", int),
        max_new_tokens_limit=value("PREDICT_MAX_NEW_TOKENS_LIMIT", int),
        sampling={name: number for name, number in sampling.items() if number is not None},
        defaults_for_messages=bool(value("PREDICT_DEFAULTS_FOR_MESSAGES", _flag)),
    )


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"

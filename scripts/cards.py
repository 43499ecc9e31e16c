"""Reads and validates templates/models/*.yaml, the only reader of those files.

Promises: a `Card` holds only values that passed validation, every key of its file is known and
none is missing. Refuses, with a `CardError` of one line per fault that names the file and the key:
an unknown or missing key, a value of the wrong type or out of range, a name that is not the file's.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "templates" / "models"
DEFAULT_MODEL = "mistral-7b"


class CardError(ValueError):
    """A card that cannot be used; the message says which file and key, and what is allowed."""


class Section(BaseModel):
    # strict: "32" is not 32, so that a quoting slip is found here and not in a start command
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _url(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("must be an https:// address")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or value.rstrip("/") != value:
        raise ValueError("must be an absolute path without a trailing slash")
    return value


Source = Annotated[str, AfterValidator(_url)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Count = Annotated[int, Field(ge=1)]


class Weights(Section):
    """What to fetch: file patterns of `repo` at `revision` that name each weight once."""

    source: Source
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[list[str], Field(min_length=1)]
    mount_location: Annotated[str, AfterValidator(_absolute)]


class Formats(Section):
    """Values of vLLM's --config-format, --load-format and --tokenizer-mode."""

    source: Source
    config: Literal["mistral", "hf"]
    load: Literal["mistral", "safetensors"]
    tokenizer: Literal["mistral"]


class Experts(Section):
    count: Count
    active: Count


class Vision(Section):
    """The vision encoder; sizes in pixels, widths in elements."""

    layers: Count
    hidden_size: Count
    intermediate_size: Count
    heads: Count
    patch_size: Count
    image_size: Count
    channels: Count
    rope_theta: float
    adapter_bias: bool
    image_token_id: Count


class Architecture(Section):
    """The text decoder's shape; widths in elements, `vocabulary` in tokens."""

    source: Source
    layers: Count
    hidden_size: Count
    intermediate_size: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocabulary: Count
    rope_theta: float
    experts: Experts | None
    vision: Vision | None


class Context(Section):
    source: Source
    length: Count  # tokens, prompt and answer together


class ServedNames(Section):
    aliases: list[Name]


class Features(Section):
    source: Source
    tools: bool
    images: Annotated[int, Field(ge=0)]  # most in one request


class Hardware(Section):
    """Where the model runs by default. `accelerator` is a name of Truss's `Accelerator`."""

    source: Source
    accelerator: Name
    count: Count
    precision: Literal["float16", "bfloat16"]
    startup_seconds: Annotated[int, Field(ge=10, le=3000)]  # Baseten's bounds


class Sampling(Section):
    """Defaults of the older `prompt` API; null where the model has none.

    `openai_requests`: whether they hold for OpenAI-shaped requests too.
    """

    source: Source
    max_tokens: Count
    max_tokens_limit: Count | None
    temperature: Annotated[float, Field(ge=0, le=2)] | None
    top_p: Annotated[float, Field(gt=0, le=1)] | None
    top_k: Count | None
    openai_requests: bool


class Autoscaling(Section):
    """What `make autoscale` sets on Baseten; keys and bounds are those of its management API."""

    source: Source
    min_replica: Annotated[int, Field(ge=0)]  # 0: nothing runs, and nothing is paid, when idle
    max_replica: Count
    concurrency_target: Count  # requests one replica is given at a time

    @model_validator(mode="after")
    def _consistent(self) -> "Autoscaling":
        if self.min_replica > self.max_replica:
            raise ValueError(
                f"min_replica {self.min_replica} must not be above max_replica {self.max_replica}"
            )
        return self


class Card(Section):
    """One model: everything this project knows about it."""

    name: Name
    title: str
    weights: Weights
    formats: Formats
    architecture: Architecture
    context: Context
    served_names: ServedNames
    features: Features
    hardware: Hardware
    sampling: Sampling
    # Not dumped: a stand-in's key is made from the dumped card, and no stand-in depends on this.
    autoscaling: Annotated[Autoscaling, Field(exclude=True)]
    example_input: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """All names the server answers to; the first is the one it reports."""
        return list(dict.fromkeys([self.name, self.weights.repo, *self.served_names.aliases]))

    @model_validator(mode="after")
    def _consistent(self) -> "Card":
        if (self.features.images > 0) != (self.architecture.vision is not None):
            raise ValueError(
                f"features.images is {self.features.images}, so architecture.vision "
                f"must {'be given' if self.features.images else 'be null'}"
            )
        if self.architecture.heads % self.hardware.count:
            raise ValueError(
                f"hardware.count {self.hardware.count} does not divide "
                f"architecture.heads {self.architecture.heads}"
            )
        return self


def names(folder: Path = MODELS) -> list[str]:
    """The names MODEL= takes: one per file in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(name: str, folder: Path = MODELS) -> Card:
    """The card called `name`; `CardError` when there is none or it is not valid."""
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        raise CardError(f"there is no model {name!r}; MODEL is one of: {', '.join(names(folder))}")
    try:
        card = Card.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise CardError(f"{path.name}: not valid YAML: {error}") from error
    except ValidationError as error:
        raise CardError("\n".join(_fault(path, fault) for fault in error.errors())) from error
    if card.name != name:
        raise CardError(f"{path.name}: name: is {card.name!r}, must be the file's, {name!r}")
    return card


def load_all(folder: Path = MODELS) -> list[Card]:
    return [load(name, folder) for name in names(folder)]


def _fault(path: Path, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "the card"
    match fault["type"]:
        case "extra_forbidden":
            return f"{path.name}: {key}: unknown key; remove it or correct its spelling"
        case "missing":
            return f"{path.name}: {key}: missing key; scripts/cards.py says what it means"
        case _:
            return f"{path.name}: {key}: {fault['msg']}, got {fault['input']!r}"

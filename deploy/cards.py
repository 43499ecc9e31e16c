"""Reads and validates templates/models/*.yaml, the only reader of those files.

Promises: a `Card` holds only validated values; every key of its file is known, and none is missing
except those that templates/defaults.yaml or the card's `base` supplies. Refuses, with a `CardError`
of one line per fault that names the file and the key: an unknown or missing key, a value of the
wrong type or out of range, a name that differs from the file's, another card's title.
"""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from deploy import fast_yaml, vllm_args
from deploy.errors import UsageError
from deploy.limits import LIMITS
from deploy.paths import ROOT
from deploy.sections import (
    Adapters,
    Architecture,
    Autoscaling,
    Context,
    Features,
    Formats,
    Hardware,
    Images,
    Limit,
    LimitName,
    Name,
    OwnWeights,
    Quantized,
    S,
    Sampling,
    Section,
    ServedNames,
    Serving,
    Standin,
    Title,
    Weights,
    checked_flags,
    checked_variables,
)

MODELS = ROOT / "templates" / "models"
DEFAULT_MODEL = "mistral-7b"
DEFAULTS = ROOT / "templates" / "defaults.yaml"

# mistral-common reads a bare tokenizer.model as version 1; others have the version in the name.
TOKENIZER = re.compile(r"tekken\.json|tokenizer\.model(\.v\d\w*)?")


class CardError(UsageError):
    """An invalid card; the message says which file and key, and what is allowed."""


class Card(Section):
    """One model: everything this project knows about it."""

    name: Name
    title: Title
    base: Annotated[Name | None, Field(exclude=True)] = None  # supplies the keys that are left out
    weights: Weights
    formats: Formats
    architecture: Architecture
    context: Context
    served_names: ServedNames
    features: Features
    hardware: Hardware
    sampling: Sampling
    # Not dumped: a stand-in's key is a hash of the dumped card, and no stand-in depends on these.
    limits: Annotated[dict[LimitName, Limit], Field(exclude=True, default_factory=dict)]
    autoscaling: Annotated[Autoscaling, Field(exclude=True)]
    serving: Annotated[Serving, Field(exclude=True)]
    quantized: Annotated[list[Quantized], Field(exclude=True, default_factory=list)]
    images: Annotated[Images | None, Field(exclude=True)]
    own_weights: Annotated[OwnWeights | None, Field(exclude=True)] = None
    adapters: Annotated[Adapters, Field(exclude=True)]
    vllm_args: Annotated[str, AfterValidator(checked_flags), Field(exclude=True)] = (
        ""  # like VLLM_ARGS=
    )
    environment: Annotated[
        dict[str, str], AfterValidator(checked_variables), Field(exclude=True, default_factory=dict)
    ]
    standin: Annotated[Standin, Field(exclude=True)]
    example_input: dict[str, Any]

    @property
    def request_limits(self) -> dict[str, int | None]:
        """The maximum per request of each limit, by its name in limits.yaml. The images of all
        requests, with vLLM's two caches of them, get an eighth of the host's memory."""
        defaults = {name: row["default"] for name, row in LIMITS.items()}
        derived = {"vocabulary": self.architecture.vocabulary}
        if self.images is not None:
            # One in the engine, and one of the same size in the API server, for /tokenize alone
            # (vllm/renderers/base.py, `_mm_processor_only_cache`)
            caches = 2 * int(self.images.cache_gib * 2**30)
            derived["image_memory_bytes"] = (self.serving.memory << 30) // 8 - caches
        return {**defaults, **derived, **self.limits}

    @property
    def flags(self) -> tuple[str, ...]:
        """`vllm_args`, split into words."""
        return vllm_args.words(self.vllm_args)

    @property
    def names(self) -> list[str]:
        """All names the server answers to, apart from the adapters; it reports the first."""
        own = self.own_weights.remote if self.own_weights else None
        repo = own.path if own and own.on_hub else None if own and self.base else self.weights.repo
        both = [self.weights.repo] if own and not self.base else []
        known = [self.name, *both, repo, *self.served_names.aliases]
        return list(dict.fromkeys(name for name in known if name))

    @property
    def tokenizer_file(self) -> str:
        """The file of `weights` that holds the tokenizer."""
        return next(file for file in self.weights.files if TOKENIZER.fullmatch(file))

    @model_validator(mode="after")
    def _consistent(self) -> "Card":
        if (self.features.images > 0) != (self.architecture.vision is not None):
            raise ValueError(
                f"features.images is {self.features.images}, so architecture.vision "
                f"must {'be given' if self.features.images else 'be null'}"
            )
        if (self.features.images > 0) != (self.images is not None):
            raise ValueError(
                f"features.images is {self.features.images}, so images "
                f"must {'be given' if self.features.images else 'be null'}"
            )
        if self.architecture.heads % self.hardware.count:
            raise ValueError(
                f"hardware.count {self.hardware.count} does not divide "
                f"architecture.heads {self.architecture.heads}"
            )
        tokenizers = [file for file in self.weights.files if TOKENIZER.fullmatch(file)]
        if len(tokenizers) != 1:
            raise ValueError(
                "weights.files must name one tokenizer of Mistral's (tekken.json, "
                f"tokenizer.model.v3 …), and names {', '.join(tokenizers) or 'none'}"
            )
        if self.features.tools and tokenizers == ["tokenizer.model"]:
            raise ValueError(
                "features.tools is true, and weights.files has tokenizer.model, which is read as "
                "version 1, without tools; name tokenizer.model.v3 or tekken.json, or say false"
            )
        if clash := sorted(set(self.adapters.sources) & set(self.names)):
            raise ValueError(f"the adapter's name {clash[0]!r} is one that the model answers to")
        precisions = [repo.precision for repo in self.quantized]
        if len(set(precisions)) != len(precisions):
            raise ValueError(f"quantized names a precision twice: {', '.join(precisions)}")
        return self


def read(path: Path, kind: type[S]) -> S:
    """A file of templates/, parsed as a `kind`; `CardError` if it is not valid."""
    return validated(path, _content(path), kind)


def validated(path: Path, content: dict[str, Any], kind: type[S]) -> S:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise CardError("\n".join(fault(path, one) for one in error.errors())) from error


def names(folder: Path = MODELS) -> list[str]:
    """The names MODEL= takes: one per file in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load(name: str, folder: Path = MODELS) -> Card:
    """The card called `name`; `CardError` if it does not exist or is not valid."""
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        near = _nearest(name, folder)
        meant = f"; did you mean {near}?" if near else ";"
        raise CardError(
            f"there is no model {name!r}{meant} MODEL is one of: {', '.join(names(folder))}"
        )
    content = _content(path)
    given = content
    if (base := content.get("base")) is not None:
        below = _content(folder / f"{base}.yaml") if base in names(folder) else {"base": None}
        if "base" in below or not isinstance(base, str):
            raise CardError(f"{path.name}: base: {base!r} is not a card without a base of its own")
        content = _merged({**below, "served_names": {"aliases": []}, "quantized": []}, content)
    card = validated(path, _merged(_content(DEFAULTS), content), Card)
    if card.name != name:
        raise CardError(f"{path.name}: name: is {card.name!r}, must be the file's, {name!r}")
    if base is not None and "title" not in given:
        raise CardError(f"{path.name}: title: missing key; Baseten tells models apart by it")
    if other := titled(card.title, name, folder):
        raise CardError(
            f"{path.name}: title: {card.title!r} is {other}.yaml's too; Baseten tells models "
            "apart by it"
        )
    return card


def _nearest(name: str, folder: Path) -> str | None:
    """The card that was probably meant: by its weights' repo, its title, or a similar name."""
    bare = name.rpartition("/")[2].lower().removesuffix(".yaml").replace(" ", "-").replace("_", "-")
    if bare in names(folder):
        return bare
    for known in names(folder):
        text = (folder / f"{known}.yaml").read_text("utf-8").lower()
        words = re.findall(r"^(?:title|\s+repo): *(.*\S)", text, re.MULTILINE)
        if bare in [word.rpartition("/")[2].replace(" ", "-") for word in words]:
            return known
    near = difflib.get_close_matches(bare, names(folder), n=1)
    return near[0] if near else None


def titled(title: str, but: str, folder: Path = MODELS) -> str | None:
    """The card with this title, ignoring the one called `but`."""
    texts = {name: (folder / f"{name}.yaml").read_text("utf-8") for name in names(folder)}
    return next((name for name in texts if name != but and _title(texts[name]) == title), None)


@cache
def _title(text: str) -> object:
    """The title in a card, whether or not the card is valid."""
    try:
        content = fast_yaml.load(text)
    except yaml.YAMLError:
        return None
    return content.get("title") if isinstance(content, dict) else None


def _content(path: Path) -> dict[str, Any]:
    try:
        content = fast_yaml.load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CardError(f"{path.name}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise CardError(f"{path.name}: must be a mapping of keys, got {content!r}")
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above`, with the keys it leaves out taken from `below`, also within sections."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        if isinstance(inner, dict) and isinstance(value, dict) and key != "example_input":
            both[key] = _merged(inner, value)
        else:
            both[key] = value
    return both


def load_all(folder: Path = MODELS) -> list[Card]:
    return [load(name, folder) for name in names(folder)]


def fault(path: Path, error: Any) -> str:
    """One of pydantic's errors about the file at `path`, as one line."""
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{path.name}: {key}: unknown key; remove it or correct its spelling"
        case "missing":
            return f"{path.name}: {key}: missing key; deploy/sections.py says what it means"
        case "value_error" if isinstance(error["input"], dict):  # it names its keys itself
            where = f"{key}: " if error["loc"] else ""
            return f"{path.name}: {where}{error['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{path.name}: {key}: {error['msg']}, got {error['input']!r}"

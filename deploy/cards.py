"""Reads and validates templates/models/*.yaml, the only reader of those files.

Promises: a `Card` holds only values that passed validation, every key of its file is known and
none is missing. Refuses, with a `CardError` of one line per fault that names the file and the key:
an unknown or missing key, a value of the wrong type or out of range, a name that is not the file's.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy import environment, sources, vllm_args
from deploy.errors import UsageError
from deploy.paths import ROOT
from deploy.sources import Remote

MODELS = ROOT / "templates" / "models"
LIMITS: dict[str, dict[str, Any]] = yaml.safe_load(  # each with `default` and `description`
    (ROOT / "packages" / "predict" / "limits.yaml").read_text(encoding="utf-8")
)
DEFAULT_MODEL = "mistral-7b"
DEFAULTS = ROOT / "templates" / "defaults.yaml"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of vLLM's --max-lora-rank
ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
USUAL_STARTUP = 1800  # seconds that Baseten lets a replica take by default
LONGEST_STARTUP = 3000  # and at most


# A bare tokenizer.model is version 1 to mistral-common; others have their version in the name.
TOKENIZER = re.compile(r"tekken\.json|tokenizer\.model(\.v\d\w*)?")


class CardError(UsageError):
    """A card that cannot be used; the message says which file and key, and what is allowed."""


class Section(BaseModel):
    # strict: "32" is not 32, so that a quoting slip is found here and not in a start command
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


S = TypeVar("S", bound=Section)


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


def _limit_name(value: str) -> str:
    if value not in LIMITS or value == "vocabulary":  # which is the architecture's
        raise ValueError("is not a limit; packages/predict/limits.yaml lists them")
    return value


def _flags(value: str) -> str:
    vllm_args.check(vllm_args.words(value, "vllm_args"), "vllm_args")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    environment.check(value, "environment")
    return value


def _remote(value: str) -> str:
    sources.parse(value, "source")
    return value


def _rank(value: int) -> int:
    if value not in RANKS:
        raise ValueError(f"must be one of {', '.join(map(str, RANKS))}")
    return value


AdapterName = Annotated[str, Field(pattern=ADAPTER_NAME)]
LimitName = Annotated[str, AfterValidator(_limit_name)]
Limit = Annotated[int, Field(ge=0)] | None


class Files(Section):
    """What to fetch: file patterns of `repo` at `revision` that name each weight once."""

    source: Source
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[list[str], Field(min_length=1)]


class Weights(Files):
    mount_location: Annotated[str, AfterValidator(_absolute)]


class Formats(Section):
    """Values of vLLM's --config-format, --load-format and --tokenizer-mode."""

    source: Source
    config: Literal["mistral", "hf", "auto"]
    load: Literal["mistral", "safetensors", "auto"]
    tokenizer: Literal["mistral"]


class Quantized(Files):
    """A repo of the same model whose weights somebody has quantized, in Hugging Face's format.

    `bits` and `group_size` are those of its quantization_config: each group of that many weights
    has a scale and a zero point beside.
    """

    precision: Literal["awq", "gptq"]  # what PRECISION= chooses it by
    bits: Literal[4, 8]
    group_size: Count

    @property
    def formats(self) -> Formats:
        return Formats(source=self.source, config="hf", load="safetensors", tokenizer="mistral")


class OwnWeights(Section):
    """A fine-tune of `base`, which gives everything else, its tokenizer too. `format` is None where
    vLLM is to find it: Mistral's with a params.json and consolidated weights, else Hugging Face's.
    `auth` is Truss's, where a secret's name alone will not do."""

    source: Annotated[str, AfterValidator(_remote)]
    format: Literal["hf", "mistral"] | None = None
    quantized: Literal["fp8", "int8", "w4a16", "awq", "gptq"] | None = None
    auth: dict[str, str] | None = None

    @property
    def remote(self) -> Remote:
        return sources.parse(self.source, "source")

    @property
    def files(self) -> list[str]:
        """Patterns. Without a format, what either may need: vLLM takes Mistral's of both."""
        hf = ["config.json", "generation_config.json", "model*.safetensors"]
        hf += ["model.safetensors.index.json"]
        mistral = ["params.json", "config.json", "consolidated*.safetensors"]
        if self.format is None:
            return list(dict.fromkeys([*mistral, "*.safetensors.index.json", *hf]))
        return hf if self.format == "hf" else mistral


Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Adapters(Section):
    """LoRA adapters, by the name they are served under. `modules` are those of the decoder that may
    be adapted, null for all: vLLM keeps memory for each."""

    rank: Annotated[int, AfterValidator(_rank)]
    modules: (
        list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]]
        | None
    )
    sources: dict[AdapterName, Annotated[str, AfterValidator(_remote)]]
    auth: dict[str, str] | None

    def remote(self, name: str) -> Remote:
        return sources.parse(self.sources[name], "sources")


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


class Images(Section):
    """What one image may be at most, as sent and decoded, and how long those of one request may
    take to fetch together; how much of processed images vLLM keeps, in each of two processes."""

    source: Source
    megabytes: Count  # of 2**20 bytes, as vLLM counts them
    pixels: Count
    fetch_seconds: Count
    cache_gib: Count


class Hardware(Section):
    """Where the model runs by default. `accelerator` is a name of Truss's `Accelerator`."""

    source: Source
    accelerator: Name
    count: Count
    precision: Literal["float16", "bfloat16"]
    startup_seconds: Annotated[int, Field(ge=10, le=LONGEST_STARTUP)]


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
    """What `make autoscale` sets on Baseten; keys and bounds are those of its management API.

    How many requests a replica is given at a time depends on the hardware: deploy/plan.py.
    """

    source: Source
    min_replica: Annotated[int, Field(ge=0)]  # 0: nothing runs, and nothing is paid, when idle
    max_replica: Count
    target_utilization_percentage: Annotated[int, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _consistent(self) -> "Autoscaling":
        if self.min_replica > self.max_replica:
            raise ValueError(
                f"min_replica {self.min_replica} must not be above max_replica {self.max_replica}"
            )
        return self


class Serving(Section):
    """How much one replica takes on, and when it is given up."""

    queue: Count  # requests that wait beside those being served; more are refused
    stall_seconds: Count  # an engine with requests that does nothing for so long hangs
    drain_seconds: Count  # for what runs to finish when vLLM is told to stop
    cpu: Count  # vCPUs of the host, at least
    memory: Count  # GiB of the host's memory, at least


class Standin(Section):
    """Of the small checkpoint that is trained in the place of the weights. `tokenizer`: the model's
    own, a file that mistral_common ships; `tests`: which of the container's tests run on it, all or
    those that prove what differs between models."""

    tokenizer: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    tests: Literal["all", "answers"] = "answers"


class Card(Section):
    """One model: everything this project knows about it."""

    name: Name
    title: str
    base: Annotated[Name | None, Field(exclude=True)] = None  # the card that gives what is left out
    weights: Weights
    formats: Formats
    architecture: Architecture
    context: Context
    served_names: ServedNames
    features: Features
    hardware: Hardware
    sampling: Sampling
    # Not dumped: a stand-in's key is made from the dumped card, and no stand-in depends on these.
    limits: Annotated[dict[LimitName, Limit], Field(exclude=True, default_factory=dict)]
    autoscaling: Annotated[Autoscaling, Field(exclude=True)]
    serving: Annotated[Serving, Field(exclude=True)]
    quantized: Annotated[list[Quantized], Field(exclude=True, default_factory=list)]
    images: Annotated[Images | None, Field(exclude=True)]
    own_weights: Annotated[OwnWeights | None, Field(exclude=True)] = None
    adapters: Annotated[Adapters, Field(exclude=True)]
    vllm_args: Annotated[str, AfterValidator(_flags), Field(exclude=True)] = ""  # as VLLM_ARGS=
    environment: Annotated[
        dict[str, str], AfterValidator(_variables), Field(exclude=True, default_factory=dict)
    ]
    standin: Annotated[Standin, Field(exclude=True)]
    example_input: dict[str, Any]

    @property
    def request_limits(self) -> dict[str, int | None]:
        """The most that one request may have of each, by the names of limits.yaml; for the images
        of all requests an eighth of the host's memory."""
        defaults = {name: row["default"] for name, row in LIMITS.items()}
        derived = {"vocabulary": self.architecture.vocabulary}
        if self.images is not None:
            derived["image_memory_bytes"] = (self.serving.memory << 30) // 8
        return {**defaults, **derived, **self.limits}

    @property
    def flags(self) -> tuple[str, ...]:
        """The words of `vllm_args`."""
        return vllm_args.words(self.vllm_args)

    @property
    def names(self) -> list[str]:
        """All names the server answers to, beside the adapters' own; the first is the one it
        reports."""
        own = self.own_weights.remote if self.own_weights else None
        repo = own.path if own and own.on_hub else None if own and self.base else self.weights.repo
        both = [self.weights.repo] if own and not self.base else []
        known = [self.name, *both, repo, *self.served_names.aliases]
        return list(dict.fromkeys(name for name in known if name))

    @property
    def tokenizer_file(self) -> str:
        """The one file of `weights` that holds the tokenizer."""
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
    """A file of templates/ as what it must be; `CardError` when it is not valid."""
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
    """The card called `name`; `CardError` when there is none or it is not valid."""
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        raise CardError(f"there is no model {name!r}; MODEL is one of: {', '.join(names(folder))}")
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
    for other in folder.glob("*.yaml"):
        same = re.search(
            rf"^title: {re.escape(card.title)}\s*(#.*)?$", other.read_text("utf-8"), re.M
        )
        if other != path and same:
            raise CardError(
                f"{path.name}: title: {card.title!r} is {other.name}'s too; Baseten tells models "
                "apart by it"
            )
    return card


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CardError(f"{path.name}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise CardError(f"{path.name}: must be a mapping of keys, got {content!r}")
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above`, and what it leaves out as `below` has it, key by key within sections."""
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
    """One of pydantic's errors about the file at `path`, in one line."""
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{path.name}: {key}: unknown key; remove it or correct its spelling"
        case "missing":
            return (
                f"{path.name}: {key}: missing key; its class in deploy/cards.py says what it means"
            )
        case _:
            return f"{path.name}: {key}: {error['msg']}, got {error['input']!r}"

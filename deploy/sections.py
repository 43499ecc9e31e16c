"""The sections of a card in templates/models/, and what each of their keys means.

Promises: strict: an unknown key, a value of another type or out of range is a pydantic error, which
deploy/cards.py turns into a `CardError` that names the file and the key.
"""

import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy import environment, sources, vllm_args
from deploy.limits import LIMITS
from deploy.sources import Remote

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of vLLM's --max-lora-rank
ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
USUAL_STARTUP = 1800  # seconds that Baseten lets a replica take by default
LONGEST_STARTUP = 3000  # and at most


class Section(BaseModel):
    # strict: "32" is not 32, so that a stray quote fails here and not in a start command
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


S = TypeVar("S", bound=Section)


def _url(value: str) -> str:
    if not value.startswith("https://"):
        raise ValueError("must be an https:// address")
    return value


def _absolute(value: str) -> str:
    if not re.fullmatch(r"(/[\w.-]+)+", value):
        raise ValueError(
            "must be an absolute path without a trailing slash, of letters, digits and . _ -"
        )
    return value


Source = Annotated[str, AfterValidator(_url)]
Title = Annotated[str, Field(pattern=r"^\S([^\x00-\x1f]*\S)?$")]  # a line of config.yaml
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Count = Annotated[int, Field(ge=1)]


def _limit_name(value: str) -> str:
    if value not in LIMITS or value == "vocabulary":  # that one comes from the architecture
        raise ValueError("is not a limit; packages/predict/limits.yaml lists them")
    return value


def checked_flags(value: str) -> str:
    vllm_args.check(vllm_args.words(value, "vllm_args"), "vllm_args")
    return value


def checked_variables(value: dict[str, str]) -> dict[str, str]:
    environment.check(value, "environment")
    return value


def _remote(value: str) -> str:
    sources.parse(value, "source")
    return value


def _rank(value: int) -> int:
    if value not in RANKS:
        raise ValueError(f"must be one of {', '.join(map(str, RANKS))}")
    return value


def _auth(value: dict[str, str]) -> dict[str, str]:
    from truss.base.truss_config import WeightsAuth  # takes seconds to import

    try:
        WeightsAuth.model_validate(value, context={"forbid_extra": True})
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"Truss takes no such auth: {where}{said}") from error
    return value


def adapter_mount(name: str) -> str:
    """Where an adapter is mounted."""
    return f"/adapters/{name.replace('/', '--')}"


def _apart(value: dict[str, str]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for name in value:
        if other := taken.get(adapter_mount(name)):
            raise ValueError(
                f"{other!r} and {name!r} would both be mounted at {adapter_mount(name)}"
            )
        taken[adapter_mount(name)] = name
    return value


Auth = Annotated[dict[str, str], AfterValidator(_auth)]
AdapterName = Annotated[str, Field(pattern=ADAPTER_NAME)]
LimitName = Annotated[str, AfterValidator(_limit_name)]
Limit = Annotated[int, Field(ge=0)] | None


class Files(Section):
    """The files to fetch: patterns for `repo` at `revision` that match each weight once."""

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
    """A repo with quantized weights of the same model, in Hugging Face's format.

    `bits` and `group_size` are from its quantization_config: each group of that many weights also
    has a scale and a zero point.
    """

    precision: Literal["awq", "gptq"]  # the PRECISION= that selects it
    bits: Literal[4, 8]
    group_size: Count

    @property
    def formats(self) -> Formats:
        return Formats(source=self.source, config="hf", load="safetensors", tokenizer="mistral")


class OwnWeights(Section):
    """A fine-tune of `base`, which supplies everything else, including the tokenizer. `format` is
    None if vLLM is to detect it: Mistral's with a params.json and consolidated weights, else
    Hugging Face's. `auth` is Truss's, for cases where a secret's name is not enough."""

    source: Annotated[str, AfterValidator(_remote)]
    format: Literal["hf", "mistral"] | None = None
    quantized: Literal["fp8", "int8", "w4a16", "awq", "gptq"] | None = None
    auth: Auth | None = None

    @property
    def remote(self) -> Remote:
        return sources.parse(self.source, "source")

    @property
    def files(self) -> list[str]:
        """Patterns. Without a format, those for both: vLLM prefers Mistral's if it has both."""
        hf = ["config.json", "generation_config.json", "model*.safetensors"]
        hf += ["model.safetensors.index.json"]
        mistral = ["params.json", "config.json", "consolidated*.safetensors"]
        if self.format is None:
            return list(dict.fromkeys([*mistral, "*.safetensors.index.json", *hf]))
        return hf if self.format == "hf" else mistral


Module = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Adapters(Section):
    """LoRA adapters, by the name they are served under. `modules` are the decoder modules that may
    be adapted, null for all: vLLM allocates memory for each."""

    rank: Annotated[int, AfterValidator(_rank)]
    modules: list[Module] | None
    sources: Annotated[
        dict[AdapterName, Annotated[str, AfterValidator(_remote)]], AfterValidator(_apart)
    ]
    auth: Auth | None

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
    images: Annotated[int, Field(ge=0)]  # maximum per request


class Images(Section):
    """The limits of one image, as sent and decoded; how long fetching all images of a request may
    take; the size of vLLM's cache of processed images, for repeated ones."""

    source: Source
    megabytes: Count  # of 2**20 bytes, as vLLM counts them
    pixels: Count
    fetch_seconds: Count
    cache_gib: Annotated[float, Field(gt=0)]


class Hardware(Section):
    """Where the model runs by default. `accelerator` is a name of Truss's `Accelerator`."""

    source: Source
    accelerator: Name
    count: Count
    precision: Literal["float16", "bfloat16"]
    startup_seconds: Annotated[int, Field(ge=10, le=LONGEST_STARTUP)]


class Sampling(Section):
    """Defaults of the legacy format; null where the model has none.

    `openai_requests`: whether they also apply to the OpenAI format.
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

    The number of requests per replica depends on the hardware: deploy/plan.py.
    """

    source: Source
    min_replica: Annotated[int, Field(ge=0)]  # 0: nothing runs, and nothing is billed, when idle
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
    """How much load one replica takes, and when it counts as hung."""

    queue: Count  # requests that wait in addition to the running ones; more are rejected
    stall_seconds: Count  # an engine with requests that does nothing for this long hangs
    drain_seconds: Count  # for running requests to finish when vLLM is told to stop
    cpu: Count  # the host's vCPUs, at least
    memory: Count  # the host's memory in GiB, at least


class Standin(Section):
    """The small checkpoint that is trained in place of the weights. `tokenizer`: the model's own, a
    file that mistral_common ships; `tests`: which container tests run on it, all or those that
    cover the differences between models."""

    tokenizer: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    tests: Literal["all", "answers"] = "answers"

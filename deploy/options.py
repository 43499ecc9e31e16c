"""What a user may choose besides the model.

Promises: an `Options` holds only well-formed values. Refuses, with a `UsageError` that names the
value received and what is allowed, an invalid source, secret name, host or context. deploy/fit.py
decides whether the hardware can run the model.
"""

import argparse
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, cast, get_args

from deploy import environment, gpus, precisions, vllm_args
from deploy.errors import UsageError

Source = Literal["bdn", "hub"]
SOURCES: tuple[Source, ...] = get_args(Source)

# The secret that Baseten's own Pixtral Truss has its users create.
DEFAULT_SECRET = "hf_access_key"

NAME_OF_A_SECRET = r"([a-z0-9]+:)?[A-Za-z0-9][A-Za-z0-9_-]*"

NO_HOSTS = "none"
HOST = re.compile(r"\.?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Options:
    """`secret` names the secret with the hub's token; None takes the card's and the plan's value.
    `workers` is for runs on a CPU, where one process takes the place of a GPU: their number, if it
    is not the number of GPUs. `image_hosts` is None for any public host, a comma-separated list of
    hosts, or, for data URLs only, "none" or empty. `vllm_args` and `env` are further flags of `vllm
    serve` and variables of the container, in shell syntax. The others change the card:
    deploy/weights.py."""

    source: Source = "bdn"
    secret: str = DEFAULT_SECRET
    gpu: str | None = None
    precision: str | None = None
    context: int | None = None
    workers: int | None = None
    image_hosts: str | None = None
    weights: str | None = None
    format: str | None = None
    quantized: str | None = None
    adapters: str | None = None
    rank: int | None = None
    title: str | None = None
    vllm_args: str | None = None
    env: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise UsageError(
                f"SOURCE={self.source!r} is not known; use bdn (Baseten mirrors the weights) "
                "or hub (vLLM downloads them)"
            )
        if not all(re.fullmatch(NAME_OF_A_SECRET, name.strip()) for name in self.secret.split(",")):
            raise UsageError(
                f"SECRET={self.secret!r} is not the name of a Baseten secret; use letters, "
                f"digits, '_' and '-', for example {DEFAULT_SECRET}. It is the secret's name, "
                "never its value"
            )
        if re.search(r"(^|[:,])hf_[A-Za-z0-9]{30,}", self.secret):
            raise UsageError(
                "SECRET= was given what looks like a Hugging Face token; it takes the name of the "
                f"Baseten secret that holds the token, for example {DEFAULT_SECRET}"
            )
        for host in self.hosts:
            if host == NO_HOSTS or not (HOST.fullmatch(host) or is_ipv4(host)):
                raise UsageError(
                    f"IMAGE_HOSTS has {host!r}, which is not a host; use names with commas between "
                    "them (images.example.com, or .example.com for all that end so), or none for "
                    "data URLs alone"
                )
        vllm_args.check(self.flags)
        environment.check(self.variables)

    def on(self, hardware: "Options") -> "Options":
        """The same choices on the hardware of `hardware`."""
        return replace(
            self, gpu=hardware.gpu, precision=hardware.precision, context=hardware.context
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """`vllm_args`, split into words."""
        return vllm_args.words(self.vllm_args or "")

    @property
    def variables(self) -> dict[str, str]:
        """The variables of `env`, by name."""
        return environment.parse(self.env or "")

    @property
    def hosts(self) -> list[str]:
        """The hosts that images may come from, if any are named: names and IPv4 addresses, the only
        kinds Truss's allow lists take."""
        named = (self.image_hosts or "").lower()
        if named.strip() == NO_HOSTS:
            return []
        return [host.strip() for host in named.split(",") if host.strip()]


# What config.yaml's header records; workers are only for local runs.
RECORDED = [field.name for field in fields(Options) if field.name != "workers"]


def are_chosen(options: argparse.Namespace) -> bool:
    """Whether a command line has any option that changes config.yaml."""
    return any(getattr(options, name) is not None for name in ("model", *RECORDED))


def is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def from_arguments(options: argparse.Namespace, workers: int | None = None) -> Options:
    """The choices of a command line (scripts/options.py); None for those not given."""
    source: str = "bdn" if options.source is None else options.source
    secret: str = DEFAULT_SECRET if options.secret is None else options.secret
    return Options(
        source=cast(Source, source),  # Options checks it
        secret=secret,
        gpu=options.gpu,
        precision=options.precision,
        context=context_of(options.context),
        workers=workers,
        image_hosts=options.image_hosts,
        weights=options.weights,
        format=options.format,
        quantized=options.quantized,
        adapters=options.adapters,
        rank=number_of("RANK", options.rank),
        title=options.title,
        vllm_args=options.vllm_args,
        env=options.env,
    )


def hardware(options: argparse.Namespace) -> Options:
    """GPU=, PRECISION= and CONTEXT= of a command that takes no other choice. `UsageError` for a
    value that is invalid for every model; the plan decides whether it fits."""
    if options.gpu:
        gpus.parse(options.gpu)
    if options.precision:
        precisions.parse(options.precision)
    context = context_of(options.context)
    return Options(gpu=options.gpu, precision=options.precision, context=context)


def check_files(config: Path | None = None, report: Path | None = None) -> None:
    """`UsageError` for a CONFIG= that does not exist, or a REPORT= that cannot be written."""
    if config and not config.is_file():
        raise UsageError(
            f"CONFIG={config}: there is no such file; give the config.yaml that was pushed"
        )
    if report and report.is_dir():
        raise UsageError(f"REPORT={report} is a folder; name a file")
    if report and not report.parent.is_dir():
        raise UsageError(
            f"REPORT={report}: the folder {report.parent} does not exist; create it or name another"
        )


def from_words(words: Iterable[str]) -> Options:
    """The options in NAME=value words, as make takes them and `as_words` writes them."""
    found: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name.lower() not in RECORDED:
            raise UsageError(f"{name}= is not known")
        read = value if name not in ("CONTEXT", "RANK") else number_of(name, value)
        found[name.lower()] = read
    return Options(**found)


def as_words(options: Options) -> str:
    """The options that differ from the defaults, as NAME=value words for make, quoted for a shell;
    `from_words` parses them."""
    shown = {
        name.upper(): str(value)
        for name in RECORDED
        if (value := getattr(options, name)) != getattr(Options(), name)
    }
    return "".join(f" {name}={shlex.quote(value)}" for name, value in shown.items())


def context_of(value: str | None) -> int | None:
    """CONTEXT= as a number of tokens."""
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 10**9:
        raise UsageError(
            f"CONTEXT={value!r} is not a number of tokens. Use for example CONTEXT=8192"
        )
    return int(value)


def number_of(name: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 10**6:
        raise UsageError(f"{name}={value!r} is not a number above 0; use for example {name}=16")
    return int(value)

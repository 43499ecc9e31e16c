"""Writes templates/vllm_flags.yaml, every flag of `vllm serve`, read from its own parser, and
templates/vllm_variables.yaml, every environment variable of vLLM, read from vllm/envs.py.

Run it after moving to a new version of vLLM; deploying reads the lists and does not need vLLM.
"""

import argparse
import ast
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from deploy.environment import VARIABLES
from deploy.vllm_args import FLAGS
from scripts.command import command

HEADS = {
    FLAGS.name: "# Every flag of `vllm serve` {version}: how many values it takes, of what kind, "
    "within which bounds, under which names.\n"
    "# Written by `make vllm_flags` from vLLM's own parser.\n",
    VARIABLES.name: "# Every environment variable of vLLM {version}: of what kind, or which values."
    "\n# Written by `make vllm_flags` from vLLM's envs.py.\n",
}
# names of the functions with which vLLM's parser reads a value → the kinds of deploy/values.py
JSON = ("parse_dataclass", "loads", "union_dict_and_str", "_parse_type")
SIZES = ("human_readable_int", "human_readable_int_or_auto")
KINDS = {int: "integer", float: "number"}
# Spellings of a yes or no; each of vLLM's variables takes some of these.
WORDS = {"0": False, "1": True, "false": False, "true": True, "False": False, "True": True}


def bounds() -> dict[str, dict[str, float]]:
    """Fields of vLLM's configurations → their bounds, by pydantic's names: ge, gt, le, lt."""
    from vllm import config

    found: dict[str, list[dict[str, float]]] = {}
    for one in vars(config).values():
        for name, field in getattr(one, "__pydantic_fields__", {}).items():
            limits = {
                kind: getattr(limit, kind)
                for limit in field.metadata
                for kind in ("ge", "gt", "le", "lt")
                if hasattr(limit, kind)
            }
            found.setdefault(name, []).append(limits)
    return {
        name: limits[0] for name, limits in found.items() if all(one == limits[0] for one in limits)
    }


def flags() -> Iterator[str]:
    """One line per flag."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    limits = bounds()
    for action in make_arg_parser(FlexibleArgumentParser())._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        if not long or action.dest == "help":
            continue
        values = {None: "one", 0: "none", "?": "maybe"}.get(action.nargs, "some")
        row: dict[str, object] = {"values": values}
        read = action.type
        if getattr(read, "__name__", "") == "_optional_type":  # of vllm/engine/arg_utils.py
            read = inspect.getclosurevars(read).nonlocals["return_type"]
        name = getattr(read, "__name__", "")
        kind = KINDS.get(read, "json" if name in JSON else "size" if name in SIZES else None)
        if kind:
            row["kind"] = kind
        if kind not in (None, "json") and (limit := limits.get(action.dest)):
            row["bounds"] = limit
        if action.choices:
            row["choices"] = [str(choice) for choice in action.choices]
        if others := [other for other in action.option_strings if other != long[0]]:
            row["also"] = others
        yield f"{long[0]}: {json.dumps(row)}"


def variables() -> Iterator[str]:
    """One line per variable that vLLM itself reads; it warns of any other VLLM_ name."""
    from vllm import envs

    tree = ast.parse(inspect.getsource(envs))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    kinds = {
        ast.unparse(node.target): ast.unparse(node.annotation).removesuffix(" | None")
        for node in typed.body
        if isinstance(node, ast.AnnAssign)
    }
    for name, read in envs.environment_variables.items():
        if name.startswith("VLLM_"):
            yield f"{name}: {json.dumps(variable(name, read, kinds.get(name, '')))}"


def variable(name: str, read: Callable[[], object], kind: str) -> dict[str, object]:
    """The row of a variable of this type, which vLLM reads with `read`; some have no type there.
    Finds the accepted values by trial: of a yes or no, the words that have the right effect,
    because some variables take only 1 and others true."""

    def read_as(word: str) -> object:
        with mock.patch.dict(os.environ, {name: word}):
            try:
                return read()
            except ValueError:
                return None

    if kind == "bool" or (not kind and (read_as("0"), read_as("1")) == (False, True)):
        return {"choices": [word for word, meant in WORDS.items() if read_as(word) is meant]}
    if kind.startswith("Literal["):
        return {"choices": ast.literal_eval(kind.removeprefix("Literal"))}
    if read_as("abc") is None and read_as("{}") == {}:
        return {"kind": "object"}
    if kind == "set[str]" and read_as("abc") is None:  # vllm/envs.py, env_set_with_choices
        return {"choices": inspect.getclosurevars(read).nonlocals["choices"], "list": True}
    found = {each.__name__: said for each, said in KINDS.items()}.get(kind)
    return {"kind": found} if found else {}


def tables() -> dict[str, str]:
    """The two files, by name."""
    from vllm import __version__

    lines = {FLAGS.name: sorted(flags()), VARIABLES.name: sorted(variables())}
    version = __version__.split("+")[0]
    return {
        name: HEADS[name].format(version=version) + "\n".join(rows) + "\n"
        for name, rows in lines.items()
    }


@command("vllm_flags")
def main(options: argparse.Namespace) -> None:
    for name, text in tables().items():
        output = (options.output or FLAGS.parent) / name
        output.write_text(text, encoding="utf-8")
        print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(main())

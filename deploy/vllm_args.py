"""VLLM_ARGS= and a card's `vllm_args`: further flags of `vllm serve`, checked without vLLM.

Promises: vLLM's parser knows each accepted flag (templates/vllm_flags.yaml, generated from it) and
takes that many values for it; none undoes what this Truss relies on
(templates/vllm_flags_refused.yaml says what, and why); and no two flags of a start command are a
pair that certainly stops vLLM from starting. Resolves names as vLLM's parser does: underscores,
`--flag=value`, `--no-flag`, dotted keys; but not abbreviations, which a new vLLM may resolve to
another flag. Refuses with a `UsageError` that names the flag.
"""

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache

from deploy import fast_yaml
from deploy.errors import UsageError
from deploy.paths import ROOT
from deploy.values import Row, check_value, number

FLAGS = ROOT / "templates" / "vllm_flags.yaml"
REFUSED = ROOT / "templates" / "vllm_flags_refused.yaml"

# supervisord's configuration parser cuts a line here, even in quotes (true of Truss's build).
CUT = (" ;", " #")


# Pairs of flags with which vLLM does not start, on any model or GPU, according to
# vllm/config/scheduler.py, lora.py, parallel.py and observability.py. If both are given, the first
# must be at most the second:
ORDERED = (
    ("--max-num-seqs", "--max-num-batched-tokens"),
    ("--max-num-active-seqs", "--max-num-seqs"),
    ("--long-prefill-token-threshold", "--max-model-len"),
    ("--max-loras", "--max-cpu-loras"),
)
# The first requires the second:
NEEDS = {
    "--numa-bind-nodes": "--numa-bind",
    "--numa-bind-cpus": "--numa-bind",
    "--enable-eplb": "--enable-expert-parallel",
    "--collect-detailed-traces": "--otlp-traces-endpoint",
}
WHOLE_PREFILL = ("--max-model-len", "--max-num-batched-tokens")  # with --no-enable-chunked-prefill


@cache
def known() -> dict[str, Row]:
    """Flag → `values` (none, one, maybe, some), `also` (other names), and the allowed values."""
    found: dict[str, Row] = fast_yaml.load(FLAGS.read_text(encoding="utf-8"))
    return found


@cache
def names() -> dict[str, str]:
    """Every spelling → its flag."""
    flags = known()
    found = {name: flag for flag, row in flags.items() for name in [flag, *row.get("also", [])]}
    return {**found, "-O": "--optimization-level"}  # vLLM's parser also takes -O3


@cache
def refused() -> dict[str, str]:
    """Flag → why it cannot be given."""
    reasons = fast_yaml.load(REFUSED.read_text(encoding="utf-8"))
    return {flag: why for why, flags in reasons.items() for flag in flags}


def words(text: str, variable: str = "VLLM_ARGS") -> tuple[str, ...]:
    """VLLM_ARGS=, split into words as a shell does."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{variable}={text!r}: {error}") from error


def check(given: Sequence[str], variable: str = "VLLM_ARGS") -> None:
    """`UsageError` unless all `given` words are valid flags with their values, none refused."""
    for word in given:
        if any(ord(letter) < 32 for letter in word) or any(cut in word for cut in CUT):
            raise UsageError(
                f"{variable} has {word!r}: a line break, and ';' or '#' after a space, end the "
                "line of supervisord's configuration; in JSON write \\u003b and \\u0023"
            )
    for name, values in _grouped(given, variable):
        _check_flag(name, values, variable)


def _grouped(given: Sequence[str], variable: str) -> Iterator[tuple[str, list[str]]]:
    """Each flag as written, with its values. As in argparse, a word that begins with - is a flag
    unless it is a number or contains a space; a lone dash is a value."""
    name, values = "", list[str]()
    for word in given:
        if re.fullmatch(r"-O=?\d", word):
            word = f"-O={word[-1]}"
        if re.match(r"--?[A-Za-z]", word) or re.fullmatch(r"-(?!\d*\.?\d+$)\S+", word):
            if name:
                yield name, values
            name, equals, value = word.partition("=")
            values = [value] if equals else []
        elif name:
            values.append(word)
        else:
            raise UsageError(
                f"{variable} begins with {word!r}, which is not a flag of `vllm serve`; "
                "flags begin with --, for example --enforce-eager"
            )
    if name:
        yield name, values


def resolve(name: str, variable: str = "VLLM_ARGS") -> str:
    """The flag that vLLM's parser resolves `name` to, without its dotted key."""
    bare, *_ = name.split(".", 1)
    spelled = bare.replace("_", "-") if bare.startswith("--") else bare
    if spelled in names():
        return names()[spelled]
    near = [it for it in sorted(names()) if len(spelled) > 2 and it.startswith(spelled)][:6]
    near = near or difflib.get_close_matches(spelled, list(names()), n=1, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"{variable}: {name} is not a flag of `vllm serve`{hint}")


def named(given: Sequence[str]) -> list[str]:
    """The flags among checked words, as vLLM's parser resolves them."""
    return [resolve(name) for name, _ in _grouped(given, "VLLM_ARGS")]


def check_together(given: Sequence[str]) -> None:
    """`UsageError` if flags of a whole start command contradict each other. The last of a repeated
    flag counts."""
    found: dict[str, str] = {}
    off = set[str]()
    for name, values in _grouped(given, "VLLM_ARGS"):
        flag = resolve(name)
        if name.startswith(("--no-", "--no_")) and not flag.startswith("--no-"):
            off.add(flag)
            found.pop(flag, None)
        else:
            off.discard(flag)
            found[flag] = " ".join(values)
    pairs = [*ORDERED, *([WHOLE_PREFILL] if "--enable-chunked-prefill" in off else [])]
    for lower, upper in pairs:
        if lower in found and upper in found and number(found[lower]) > number(found[upper]):
            advice = f"give {lower} at most {found[upper]}"
            if lower in refused():  # the plan sets it
                advice = f"give {upper} at least {found[lower]}"
            raise UsageError(
                f"vLLM would not start: {upper} is {found[upper]}, and cannot be below {lower}, "
                f"which is {found[lower]}; in VLLM_ARGS=, or a card's vllm_args, {advice}"
            )
    for flag, needed in NEEDS.items():
        if flag in found and needed not in found:
            raise UsageError(
                f"vLLM would not start: {flag} needs {needed}; give it too, or leave {flag} out"
            )


def _check_flag(name: str, values: list[str], variable: str) -> None:
    flag = resolve(name, variable)
    if why := refused().get(flag):
        same = "" if name == flag else f" is {flag}, which"
        raise UsageError(f"{variable}: {name}{same} cannot be given: {why}")
    row = known()[flag]
    if "." in name:
        if row.get("kind") != "json":
            raise UsageError(f"{variable}: {flag} takes no dotted keys, as {name} has")
        _expect(len(values) == 1, f"{variable}: {name} takes one value", values)
        return
    match row["values"]:
        case "none":
            _expect(not values, f"{variable}: {name} takes no value", values)
        case "one":
            _expect(len(values) == 1, f"{variable}: {name} takes one value", values)
        case "maybe":
            _expect(len(values) <= 1, f"{variable}: {name} takes one value at most", values)
        case _:
            _expect(bool(values), f"{variable}: {name} takes a value or several", values)
    for value in values:
        check_value(name, value, row, variable)


def _expect(holds: bool, what: str, values: list[str]) -> None:
    if not holds:
        raise UsageError(f"{what}, got {' '.join(values) or 'none'!r}")

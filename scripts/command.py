"""The entry point: `python -m scripts.command push MODEL=pixtral-12b`, as the Makefile calls it.

Promises: every NAME=value is an option of the command and is passed on unchanged, or is refused
with the nearest name before anything is installed or done; nothing comes from the environment. The
module of a command also runs alone: `python -m scripts.push MODEL=pixtral-12b`, or `--model
pixtral-12b`. Exit codes: 2 for invalid or impossible input, 1 for a failure, 130 for Ctrl-C.
Standard library only, and Python 3.9: this runs before there is an environment.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from deploy.errors import CommandError, UsageError
from deploy.paths import ROOT
from scripts.options import COMMANDS, MAY_BE_EMPTY, WHOLE, models

Main = Callable[[argparse.Namespace], "int | None"]

WORD = re.compile(r"(?P<name>[^-=][^=]*)=(?P<value>.*)", re.DOTALL)
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
# Options that no other program uses as variables: users may try to set them in the environment.
CHOSEN = ("MODEL", "GPU", "CONTEXT", "PRECISION", "WEIGHTS", "ADAPTERS", "VLLM_ARGS")
SHOW = ("help", "plan")  # commands that only print
YES, NO = ("1", "yes", "true"), ("0", "no", "false")


class Parser(argparse.ArgumentParser):
    """argparse, with one-line errors that use NAME= as make does."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(
            r"^argument (--[\w-]+)[^:]*: ", lambda it: f"{variable(it[1])}=: ", message
        )
        if message.startswith("the following arguments are required: "):
            option = message.partition(": ")[2].partition(", ")[0].partition("/")[0]
            help = self._option_string_actions[option].help
            message = f"{variable(option)}= is missing: {help}"
            if variable(option) in os.environ:
                message += (
                    f". The environment's is not taken: {variable(option)}=${variable(option)}"
                )
        self.exit(2, f"{self.prog}: {message}\n")


def variable(option: str) -> str:
    """make's name for an option: --model-id is MODEL_ID."""
    return option.lstrip("-").replace("-", "_").upper()


def parser_of(name: str) -> Parser:
    found = COMMANDS[name]
    parser = Parser(prog=f"make {name}", description=found.description, allow_abbrev=False)
    found.add(parser)
    return parser


def actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options by all their make names."""
    return {
        variable(option): action
        for action in parser._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }


def as_options(name: str, words: Sequence[str]) -> list[str]:
    """The words for argparse: leading NAME=value words as options, the others unchanged."""
    known = actions(parser_of(name))
    matches = [WORD.fullmatch(word) for word in words]
    count = matches.index(None) if None in matches else len(matches)
    given = [(match["name"], match["value"]) for match in matches[:count] if match]
    if wrong := [unknown(name, word, list(known)) for word, _ in given if word not in known]:
        raise UsageError(textwrap.shorten("; ".join(wrong), 290, placeholder=" …"))
    options: list[str] = []
    for word, value in given:
        option = known[word].option_strings[0]
        if not value and option not in MAY_BE_EMPTY:
            raise UsageError(f"{word}= is empty: give it a value, or leave it out")
        if known[word].nargs != 0:
            options.append(f"{option}={value}")
        elif value.lower() in YES:
            options.append(option)
        elif value.lower() not in NO:
            raise UsageError(
                f"{word}={value!r} is neither yes nor no: use {word}=1 or leave it out"
            )
    return options + list(words[count:])


def unknown(name: str, given: str, known: Sequence[str]) -> str:
    """Why a name is refused, with the name that was probably meant."""
    said = f"{given}= is not known"
    if near := difflib.get_close_matches(given.upper(), known, n=1, cutoff=0.65):
        return f"{said}; did you mean {near[0]}=?"
    others = [other for other in COMMANDS if given in actions(parser_of(other))]
    if others:
        said = f"{given}= is for {', '.join(f'make {other}' for other in others)}"
    shown = list(
        dict.fromkeys(variable(it.option_strings[0]) for it in actions(parser_of(name)).values())
    )
    takes = ", ".join(f"{it}=" for it in shown) or "no choices"
    return f"{said}; make {name} takes {takes}"


def parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of a command; SystemExit with 2 and one line for invalid words."""
    parser = parser_of(name)
    try:
        options = parser.parse_args(as_options(name, words))
        COMMANDS[name].check(options)
        return options
    except UsageError as error:
        parser.error(str(error))


def run(name: str, main: Callable[[], int | None]) -> int:
    """The exit code of `main`; reports known errors in one line."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # scripts/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except (UsageError, CommandError) as error:
        print(f"make {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0 if name in SHOW else 1
    except KeyboardInterrupt as stop:
        print(f"make {name}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130


class Program(Protocol):
    """Takes command-line words, by default those of this process → exit code."""

    def __call__(self, words: Sequence[str] | None = None) -> int: ...


def command(name: str) -> Callable[[Main], Program]:
    """Makes `main(options)` a program."""

    def wrap(main: Main) -> Program:
        def program(words: Sequence[str] | None = None) -> int:
            options = parse(name, sys.argv[1:] if words is None else words)
            return run(name, lambda: main(options))

        return program

    return wrap


def help_text() -> str:
    """All commands, one per line."""
    return "\n".join(
        [
            "Commands; each sets up first what it needs. What one takes, for example push:",
            "  make help push",
            "",
            *(f"  make {name:<11}{found.description}" for name, found in COMMANDS.items()),
            "",
            "README.md begins with the shortest way; docs/operations.md goes through a deployment.",
        ]
    )


def help_of(name: str) -> str:
    """A command's purpose, and the meaning of its options."""
    options = [it for it in parser_of(name)._actions if "--help" not in it.option_strings]
    shown = {variable(it.option_strings[0]): it for it in options}
    words = [f"{word}=" if it.required else f"[{word}=]" for word, it in shown.items()]
    usage = textwrap.fill(" ".join([f"make {name}", *words]), 98, subsequent_indent=" " * 4)
    lines = [usage, f"    {COMMANDS[name].description}"]
    for word, it in shown.items():
        text = f"{word + '=':<20}{it.help or ''}"
        lines.append(textwrap.fill(text, 98, initial_indent="  ", subsequent_indent=" " * 22))
    return "\n".join(lines)


def not_a_command(word: str, before: str) -> str:
    """The message for a word that is not a command, with a suggestion after `before`."""
    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.6)
    said = f"did you mean {before}{near[0]}? " if near else ""
    return f"'{word}' is not a command of this project; {said}`make help` lists them."


def help_with(words: Sequence[str]) -> int:
    """`make help`, or `make help push smoke`."""
    for word in words:
        if word not in COMMANDS:
            raise UsageError(not_a_command(word, "make help "))
    print("\n\n".join(map(help_of, words)) or help_text(), flush=True)
    return 0


def ignored(name: str, words: Sequence[str]) -> list[str]:
    """Environment variables that have the name of one of the command's options."""
    given = {word.partition("=")[0] for word in words}
    return [
        word
        for word in CHOSEN
        if word in {*actions(parser_of(name))} - given and word in os.environ
    ]


def main(words: Sequence[str]) -> int:
    """Checks the words of a command, sets up what it needs, and becomes it (exec)."""
    name, *given = words or ["help"]
    if name == "help":
        return run("help", lambda: help_with(given))
    if name not in COMMANDS:
        model = name if name in models() else "pixtral-12b"
        written = f"What one is given is written NAME=value, as in MODEL={model}"
        print(f"{not_a_command(name, 'make ')} {written}", file=sys.stderr)
        return 2
    parse(name, given)
    for word in ignored(name, given):
        print(
            f"make {name}: {word}= of the environment is not taken; give it after the command: "
            f"make {name} {word}=…",
            file=sys.stderr,
        )
    from scripts import setup

    if status := run(name, lambda: setup.ready(COMMANDS[name].environment)):
        return status
    if name == "setup":
        return 0
    if COMMANDS[name].first:
        print(f"make {name}: {COMMANDS[name].first}", flush=True)
    python = setup.VENV / "bin" / "python"
    # so that a make run by the command's children does not take over these variables
    variables = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    variables.pop("PYTHONPATH", None)
    if COMMANDS[name].environment == WHOLE:
        variables["PYTHONPATH"] = str(ROOT / "packages")
    os.chdir(ROOT)
    os.execve(python, [str(python), "-m", f"scripts.{name}", *given], variables)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

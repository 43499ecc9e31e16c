"""Writes the start command of config.yaml for sh, with or without supervisord, and parses it.

Promises: a word that `quoted` returns reaches vLLM unchanged, through YAML, Truss's builder,
supervisord and sh, or through sh alone if Truss builds without supervisord; `serve_arguments`
returns the arguments of `vllm serve`. Refuses a command that supervisord would misread.
"""

import shlex
from itertools import zip_longest

from deploy import fast_yaml
from deploy.errors import UsageError


class StartCommandError(UsageError):
    """A start command that would not run as written."""


# supervisord expands a %, sh does not: packages/start/prepare.sh puts a % in this variable.
PERCENT = '"$percent"'


def quoted(word: str) -> str:
    """A word for the `sh -c '…'` of a start command."""
    parts = [shlex.quote(part) if part else "" for part in word.split("%")]
    return (PERCENT.join(parts) or "''").replace("'", r"'\''")


def start_command(config: str) -> str:
    """The start command in the text of a config.yaml."""
    return str(fast_yaml.load(config)["docker_server"]["start_command"])


def serve_arguments(command: str) -> list[str]:
    """The arguments of `vllm serve` in a start command; empty if it runs something else."""
    words = shlex.split(command)
    if words[:3] == ["exec", "sh", "-c"]:
        words = shlex.split(words[3].replace(PERCENT, "%"))
    return words[words.index("serve") + 1 :] if "serve" in words else []


def argument(command: str, flag: str) -> str | None:
    """The value of `flag` for `vllm serve` in a start command: the last one, as in vLLM."""
    found = None
    words = serve_arguments(command)
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name.replace("_", "-") == flag:
            found = value if equals else following
    return found


def check_start_command(command: str) -> None:
    """Refuses what supervisord's configuration parser would silently misread or truncate."""
    for trap in ("%", " ;", " #"):
        if trap in command:
            raise StartCommandError(
                f"the start command has {trap!r}, which supervisord would misread"
            )

"""The start command of config.yaml: written for sh, with or without supervisord, and read again.

Promises: what `quoted` gives reaches vLLM as it was, through YAML, Truss's builder, supervisord and
sh, or through sh alone where Truss builds without supervisord; `serve_arguments` reads what `vllm
serve` gets. Refuses a command that supervisord would misread.
"""

import shlex
from itertools import zip_longest

from deploy import fast_yaml
from deploy.errors import UsageError


class StartCommandError(UsageError):
    """A start command that would not run as it is written."""


# supervisord expands a % and sh does not: packages/start/prepare.sh has one in a variable.
PERCENT = '"$percent"'


def quoted(word: str) -> str:
    """A word for the `sh -c '…'` of a start command."""
    parts = [shlex.quote(part) if part else "" for part in word.split("%")]
    return (PERCENT.join(parts) or "''").replace("'", r"'\''")


def start_command(config: str) -> str:
    """The start command in the text of a config.yaml."""
    return str(fast_yaml.load(config)["docker_server"]["start_command"])


def serve_arguments(command: str) -> list[str]:
    """What `vllm serve` gets from a start command; nothing when that runs something else."""
    words = shlex.split(command)
    if words[:3] == ["exec", "sh", "-c"]:
        words = shlex.split(words[3].replace(PERCENT, "%"))
    return words[words.index("serve") + 1 :] if "serve" in words else []


def argument(command: str, flag: str) -> str | None:
    """The value a start command gives `vllm serve` for `flag`: the last one, as vLLM takes it."""
    found = None
    words = serve_arguments(command)
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name.replace("_", "-") == flag:
            found = value if equals else following
    return found


def check_start_command(command: str) -> None:
    """Refuses what supervisord's configuration file would misread or cut off, silently."""
    for trap in ("%", " ;", " #"):
        if trap in command:
            raise StartCommandError(
                f"the start command has {trap!r}, which supervisord would misread"
            )

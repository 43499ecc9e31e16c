"""The start command of config.yaml: written for sh within supervisord, and read again.

Promises: what `quoted` gives reaches vLLM as it was, through YAML, Truss's builder, supervisord
and sh; `serve_arguments` reads what `vllm serve` gets. Refuses a command that supervisord would
misread.
"""

import shlex

import yaml

from deploy.errors import UsageError


class StartCommandError(UsageError):
    """A start command that would not run as it is written."""


def quoted(word: str) -> str:
    """A word for `sh -c '…'` in supervisord's configuration, which expands what follows a %."""
    return shlex.quote(word).replace("'", r"'\''").replace("%", "%%")


def start_command(config: str) -> str:
    """The start command in the text of a config.yaml."""
    return str(yaml.safe_load(config)["docker_server"]["start_command"])


def serve_arguments(command: str) -> list[str]:
    """What `vllm serve` gets from a start command; nothing when that runs something else."""
    words = shlex.split(command.replace("%%", "%"))
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2])
    return words[words.index("serve") + 1 :] if "serve" in words else []


def argument(command: str, flag: str) -> str | None:
    """The value a start command gives `vllm serve` for `flag`: the last one, as vLLM takes it."""
    found = None
    words = serve_arguments(command)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name.replace("_", "-") == flag:
            found = value if equals else following
    return found


def check_start_command(command: str) -> None:
    """Refuses what supervisord's configuration file would misread or cut off, silently."""
    for trap in ("%", " ;", " #"):
        if trap in command.replace("%%", ""):
            raise StartCommandError(
                f"the start command has {trap!r}, which supervisord would misread"
            )

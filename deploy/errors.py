"""The errors that a command reports to its user in one line.

Promises: uses only the standard library, because the commands parse their options before anything
is installed. scripts/command.py maps them to exit codes: 2 for `UsageError`, 1 for `CommandError`.
"""


class UsageError(ValueError):
    """An unknown or impossible choice; the message says which, and what is allowed."""


class CommandError(RuntimeError):
    """Why a command failed, and what to do about it."""

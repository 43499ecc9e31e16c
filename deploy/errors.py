"""The errors that a command tells its user in one line.

Promises: standard library only, for the commands read their options before anything is installed.
scripts/command.py turns them into exit codes: 2 for `UsageError`, 1 for `CommandError`.
"""


class UsageError(ValueError):
    """A choice that is not known or cannot be had; the message says which, and what is allowed."""


class CommandError(RuntimeError):
    """Why a command failed, and what to do about it."""

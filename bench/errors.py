"""The error of the benchmark."""

from deploy.errors import CommandError


class BenchError(CommandError):
    """Why there are no figures, and what to do about it, in one line."""

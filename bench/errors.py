"""The error of the benchmark."""

from deploy.errors import CommandError


class BenchError(CommandError):
    """Why there are no figures, and what to do, in one line."""

"""Why there are no figures."""


class BenchError(RuntimeError):
    """Why there are no figures, and what to do about it, in one line."""

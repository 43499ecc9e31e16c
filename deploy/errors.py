"""What a user chose that cannot be."""


class UsageError(ValueError):
    """The message says what was got, what is allowed, and what to do."""

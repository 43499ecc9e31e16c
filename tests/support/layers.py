"""The layers of the tests, which are folders."""

LAYERS = ("unit", "platform", "container")


def layer_of(test: str) -> str:
    """The layer of a test, from its id."""
    folders = test.partition("::")[0].split("/")
    return folders[1] if len(folders) > 2 else folders[0]

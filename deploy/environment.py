"""ENV= and a card's `environment`: further variables of the container.

Promises: any variable but those that hold a secret, which would stand in config.yaml, and those by
which this Truss is found, guarded or silent. Refuses them with a `UsageError` that says why.
"""

import difflib
import re
import shlex
from collections.abc import Mapping

from deploy.errors import UsageError
from deploy.limits import SETTINGS

SECRET = re.compile(r"(.*_)?(TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS)")

BY_HAND = "to debug, set it under environment_variables in config.yaml, then: make push"
# Names of Python's levels that log nothing of a request.
LEVELS = ("INFO", "WARNING", "ERROR", "CRITICAL")

REFUSED = {
    "PATH": "programs of the image are found by it",
    "PORT": "Baseten sets it",
    "PYTHONPATH": "the middleware is found by it",
    "PYTHONHOME": "Python is found by it",
    "VLLM_CONFIGURE_LOGGING": "the log must not show what requests say",
    "VLLM_LOGGING_CONFIG_PATH": f"the log must not show what requests say; {BY_HAND}",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "the log must not show what is answered",
    "VLLM_MEDIA_CONNECTOR": "it keeps images from being fetched from private addresses",
    "VLLM_PLUGINS": "the media connector is loaded as a plugin",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "clients could load adapters; use ADAPTERS=",
    "VLLM_SERVER_DEV_MODE": "it opens routes for developers",
}


def parse(text: str) -> dict[str, str]:
    """ENV='A=1 B="two words"' → names and values."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"ENV={text!r}: {error}") from error
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(
                f"ENV has {word!r}, which is not NAME=VALUE; several have spaces between them, "
                "ENV='A=1 B=2'"
            )
        if name in found:
            raise UsageError(f"ENV has {name} twice")
        if second := re.search(r",([A-Z_][A-Z0-9_]*)=", value):
            raise UsageError(
                f"ENV: {name} would be {value!r}; is {second[1]} another variable? Several have "
                "spaces between them, ENV='A=1 B=2'"
            )
        found[name] = value
    check(found)
    return found


def check(variables: Mapping[str, str], where: str = "ENV") -> None:
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"{where} has {name!r}, which is not the name of a variable")
        if any(ord(letter) < 32 for letter in value):
            raise UsageError(f"{where}: the value of {name} has a line break or control character")
        if SECRET.fullmatch(name.upper()):
            raise UsageError(
                f"{where}: {name} looks like a secret, and config.yaml must hold none. Create a "
                "secret on Baseten; SECRET= names the one for the weights"
            )
        if name.startswith("PREDICT_") and name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"did you mean {near[0]}?" if near else "docs/operations.md has them"
            raise UsageError(f"{where}: {name} is no setting of the middleware; {hint}")
        if why := REFUSED.get(name):
            raise UsageError(f"{where}: {name} cannot be given: {why}")
        if name == "VLLM_LOGGING_LEVEL" and value not in LEVELS:
            raise UsageError(
                f"{where}: {name} is one of {', '.join(LEVELS)}, got {value!r}; DEBUG logs what "
                f"requests say: {BY_HAND}"
            )

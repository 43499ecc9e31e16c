"""ENV= and a card's `environment`: further variables of the container.

Promises: accepts any variable except those that hold a secret, which config.yaml would contain,
those that this Truss needs for its routing, protection or logging, and those that a choice such as
IMAGE_HOSTS= sets. A name with vLLM's prefix must be one of vLLM's (templates/vllm_variables.yaml)
with a value that it can parse. So must a name with the middleware's prefixes (deploy/limits.py),
except that the values of lists are not checked. Refuses others with a `UsageError` that says why.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache

from deploy import fast_yaml
from deploy.errors import UsageError
from deploy.limits import IMAGES, SETTINGS
from deploy.paths import ROOT
from deploy.values import Row, check_value

VARIABLES = ROOT / "templates" / "vllm_variables.yaml"

SECRET = re.compile(r"(.*_)?(TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS)")

BY_HAND = "to debug, set it under environment_variables in config.yaml, then: make push"
# Python's log levels that log nothing of a request.
LEVELS = ("INFO", "WARNING", "ERROR", "CRITICAL")

ADAPTERS = "clients could load adapters; use ADAPTERS=, or a card's adapters"
# As templates/vllm_flags_refused.yaml says about --data-parallel-size and related flags
ENGINES = "limits, slots and the liveness check count the requests of one API server and one engine"
FRONTEND = "it is of vLLM's server in Rust, in which this middleware does not run"

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
    "VLLM_USE_RUST_FRONTEND": FRONTEND,
    "VLLM_USE_RUST_BENCH": FRONTEND,
    "VLLM_RUST_FRONTEND_PATH": FRONTEND,
    "VLLM_DP_SIZE": ENGINES,
    "VLLM_DP_RANK": ENGINES,
    "VLLM_DP_RANK_LOCAL": ENGINES,
    "VLLM_DP_MASTER_IP": ENGINES,
    "VLLM_DP_MASTER_PORT": ENGINES,
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "a container without an engine has to end",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "vLLM's processes would run code that they are sent",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": ADAPTERS,
    "VLLM_LORA_RESOLVER_CACHE_DIR": ADAPTERS,
    "VLLM_LORA_RESOLVER_HF_REPO_LIST": ADAPTERS,
    "VLLM_MAX_NUM_BAD_WORDS": "it follows from bad_words of the card's limits",
    "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS": "it follows from bad_words_bytes of the card's limits",
    "PREDICT_ADAPTERS": "use ADAPTERS=, or a card's adapters, which mounts and serves them as well",
    "PREDICT_TOKENIZER": "it follows from the tokenizer's file among the card's weights",
    "PREDICT_MOST_REQUESTS": "packages/start/prepare.sh sets it, to what nginx has connections for",
    "ALLOWED_IMAGE_HOSTS": "use IMAGE_HOSTS=, which sets what the container may reach as well",
    "HF_HUB_OFFLINE": "use SOURCE=, which says where the weights come from",
    "VLLM_USE_MODELSCOPE": "use WEIGHTS= and SOURCE=, which say where the weights come from",
    "VLLM_MODEL_REDIRECT_PATH": "use WEIGHTS=, by which the plan and the tokenizer are chosen",
    "VLLM_HUMMING_ONLINE_QUANT_CONFIG": "use PRECISION=, by which the memory is planned",
    "CUDA_VISIBLE_DEVICES": "use GPU=, with a count if need be, as in GPU=A100:2",
    "VLLM_SERVER_DEV_MODE": "it opens routes for developers",
}

# Variables of older versions of vLLM without a similar name in today's.
REMOVED = {
    "VLLM_ATTENTION_BACKEND": "use VLLM_ARGS='--attention-backend …'",
    "VLLM_FLASH_ATTN_VERSION": "use VLLM_ARGS='--attention-config.flash_attn_version …'",
    "VLLM_USE_V1": "it has no other engine; leave it out",
}


@cache
def variables() -> dict[str, Row]:
    """vLLM's environment variables → the values each may have."""
    found: dict[str, Row] = fast_yaml.load(VARIABLES.read_text(encoding="utf-8"))
    return found


# Known prefixes → the valid names, what to call any other name, and where they are listed.
KNOWN: dict[str, tuple[Callable[[], dict[str, Row]], str, str]] = {
    "PREDICT_": (lambda: SETTINGS, "no setting of the middleware", "docs/operations.md#limits"),
    "ALLOWED_IMAGE_": (lambda: IMAGES, "no setting of the middleware", "docs/operations.md#images"),
    "VLLM_": (variables, "no variable of vLLM's", "templates/vllm_variables.yaml"),
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
        if why := REFUSED.get(name):
            raise UsageError(f"{where}: {name} cannot be given: {why}")
        if name == "VLLM_LOGGING_LEVEL" and value.upper() not in LEVELS:
            raise UsageError(
                f"{where}: {name} is one of {', '.join(LEVELS)}, got {value!r}; DEBUG logs what "
                f"requests say: {BY_HAND}"
            )
        for begin, (known, not_known, listed) in KNOWN.items():
            if name.startswith(begin):
                _check_known(name, known(), f"{where}: {name} is {not_known}; ", listed)
                row = known()[name]
                # empty means none in the middleware; settings with an upper bound need a value
                if value or begin == "VLLM_" or "le" in row.get("bounds", {}):
                    check_value(name, value, row, where)


def _check_known(name: str, known: Mapping[str, Row], said: str, listed: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        hint = f"did you mean {near[0]}?" if near else f"{listed} has them"
        raise UsageError(said + REMOVED.get(name, hint))

"""The container's environment variables for a card and the choices, and its network access.

Promises: variables of packages/predict and of vLLM for the card's sampling defaults, limits, images
and adapters; only those that differ from the middleware's own defaults. Refuses image hosts for a
model without images.
"""

import re

from deploy.cards import Card
from deploy.errors import UsageError
from deploy.limits import LIMITS
from deploy.options import Options

NO_STOP_LIMIT = 1 << 16  # strings; vLLM has no other way to disable the limit


def predict_settings(card: Card, most_requests: int | None = None) -> dict[str, str]:
    """The card's defaults for requests, and its limits that differ from limits.yaml, as
    packages/predict/settings.py reads them. A request may have no more prompts than the server
    takes requests at a time: retrying it would never succeed."""
    sampling = card.sampling
    settings = {
        "PREDICT_MAX_NEW_TOKENS": sampling.max_tokens,
        "PREDICT_MAX_NEW_TOKENS_LIMIT": sampling.max_tokens_limit,
        "PREDICT_TEMPERATURE": sampling.temperature,
        "PREDICT_TOP_P": sampling.top_p,
        "PREDICT_TOP_K": sampling.top_k,
        "PREDICT_DEFAULTS_FOR_MESSAGES": 1 if sampling.openai_requests else None,
        "PREDICT_STALL_SECONDS": card.serving.stall_seconds,
        "PREDICT_TOKENIZER": tokenizer_generation(card.weights.files),
        "PREDICT_ADAPTERS": ",".join(card.adapters.sources) or None,  # for errors that list names
    }
    found = {name: str(value) for name, value in settings.items() if value is not None}
    found["VLLM_MAX_STOP_STRINGS"] = str(card.request_limits["stop_strings"] or NO_STOP_LIMIT)
    limits = dict(card.request_limits)
    # vLLM counts a word twice, with and without a leading space, if the tokens differ.
    size, words = limits["bad_words_bytes"], limits["bad_words"]
    if words is not None:
        found["VLLM_MAX_NUM_BAD_WORDS"] = str(2 * words)
    if size is not None:
        found["VLLM_MAX_BAD_WORDS_TOTAL_TOKENS"] = str(2 * (size + (words or 0)))
    if most_requests is not None:
        limits["prompts"] = min(limits["prompts"] or most_requests, most_requests)
    for name, most in limits.items():
        if most != LIMITS[name]["default"]:
            found[f"PREDICT_LIMIT_{name.upper()}"] = "" if most is None else str(most)
    return found


def tokenizer_generation(files: list[str]) -> str | None:
    """packages/predict's name for the tokenizer of these files, from the file name; None for
    tekken, which has one name for all versions: the middleware then takes v3, whose rules hold for
    later ones."""
    for file in files:
        if found := re.fullmatch(r"tokenizer\.model(?:\.(v\d+))?", file):
            return found[1] or "v1"
    return None


def image_settings(card: Card, choices: Options) -> dict[str, str]:
    """The card's limits for images, in vLLM's own variables, and the hosts they may come from."""
    # packages/predict/images/connector.py, for text models too: otherwise their tokenizer would
    # fetch the URLs in a message, though vLLM takes no images
    settings = {"VLLM_MEDIA_CONNECTOR": "predict"}
    if card.images is None:
        if choices.image_hosts is not None:
            raise UsageError(f"IMAGE_HOSTS={choices.image_hosts!r}: {card.title} takes no images")
        return settings
    settings |= {
        "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": str(card.images.megabytes),
        "VLLM_MAX_IMAGE_PIXELS": str(card.images.pixels),
        "VLLM_IMAGE_FETCH_TIMEOUT": str(card.images.fetch_seconds),
        # A name server that does not answer blocks a look-up, of which there are 64 at a time, for
        # 8 s; glibc's own settings make that 20.
        "RES_OPTIONS": "timeout:2 attempts:2",
        # glibc returns blocks from 128 KiB, such as images in each process, to the system when they
        # are freed. This is its default threshold, but unless set it rises (to 32 MiB) with the
        # first large block: the engine then kept the peak memory of its requests.
        "MALLOC_MMAP_THRESHOLD_": str(128 << 10),
    }
    if choices.image_hosts is not None:
        settings["ALLOWED_IMAGE_HOSTS"] = ",".join(choices.hosts)
    return settings


def egress(card: Card, choices: Options) -> dict[str, list[str]] | None:
    """Truss's `egress_restrictions`: what the container may reach; None for everything.

    Two empty lists block everything (truss/base/truss_config.py, `EgressRestrictions`). SOURCE=hub
    needs the hub, whose download hosts change.
    """
    if choices.source == "hub" or (card.images is not None and choices.image_hosts is None):
        return None
    hosts = choices.hosts
    addresses = [host for host in hosts if host.replace(".", "").isdecimal()]
    names = [host for host in hosts if host not in addresses]
    return {
        "ip_allow_list": addresses,
        "fqdn_allow_list": [f"*{name}" if name.startswith(".") else name for name in names],
    }

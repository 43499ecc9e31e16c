"""A user's own weights and adapters: how they change a card, and how they are mounted.

Promises: with own weights, or a repo quantized by others, the tokenizer still comes from the card's
own repo, as a second small mount, so the instruct format stays exact; each adapter has its own
mount; sources other than the hub get the credentials from SECRET=, or a card's `auth`. Refuses a
duplicate name, a name the model answers to, and an address that Truss would not accept.
"""

import re
from typing import Any

from pydantic import ValidationError

from deploy import cards, sources
from deploy.cards import Card
from deploy.errors import UsageError
from deploy.options import DEFAULT_SECRET, Options
from deploy.plan import Plan
from deploy.sections import RANKS, Adapters, Files, OwnWeights, adapter_mount
from deploy.sources import Remote

FORMATS = ("hf", "mistral")


def applied(card: Card, options: Options) -> Card:
    """The card with its weights, adapters and title replaced by those of the options."""
    changes: dict[str, Any] = {}
    if options.title is not None:
        changes["title"] = _title(options.title, card)
    if options.weights is not None:
        changes["own_weights"] = _own(options)
        changes["quantized"] = []
    elif options.format or options.quantized:
        name = "FORMAT" if options.format else "QUANTIZED"
        raise UsageError(
            f"{name}= describes WEIGHTS=, which is not given; give WEIGHTS=hf://owner/name too, or "
            f"leave {name}= out"
        )
    if options.adapters is not None:
        given = {"sources": _adapters(options.adapters), "auth": None}
        changes["adapters"] = card.adapters.model_copy(update=given)
    if options.rank is not None:
        if options.rank > RANKS[-1]:
            raise UsageError(
                f"RANK={options.rank}: vLLM serves adapters of rank {RANKS[-1]} at most; leave out "
                "those that have more"
            )
        if options.rank not in RANKS:
            near = next(rank for rank in RANKS if rank > options.rank)
            raise UsageError(
                f"RANK={options.rank}: vLLM takes {', '.join(map(str, RANKS))}, the largest of the "
                f"adapters' own or more; use RANK={near}"
            )
        adapters: Adapters = changes.get("adapters", card.adapters)
        changes["adapters"] = adapters.model_copy(update={"rank": options.rank})
    found = _readable(card.model_copy(update=changes))
    if options.rank is not None and not found.adapters.sources:
        raise UsageError(f"RANK={options.rank} is of ADAPTERS=, which is not given")
    if clash := sorted(set(found.adapters.sources) & set(found.names)):
        raise UsageError(
            f"ADAPTERS has {clash[0]!r}, which the model itself answers to "
            f"({', '.join(found.names)}); give the adapter another name"
        )
    return found


def _readable(card: Card) -> Card:
    """The card, with a format for own weights that vLLM can start with. To read images in Hugging
    Face's format, it needs that repo's tokenizer beside its preprocessor_config.json."""
    own = card.own_weights
    if own is None or card.architecture.vision is None:
        return card
    if own.format == "hf":
        raise UsageError(
            f"FORMAT=hf: of {card.title} own weights are served in Mistral's format alone "
            "(params.json, consolidated*.safetensors): in the other vLLM would read images with "
            "the repo's own tokenizer. Convert them, and use FORMAT=mistral"
        )
    return card.model_copy(update={"own_weights": own.model_copy(update={"format": "mistral"})})


def _title(text: str, card: Card) -> str:
    if not re.fullmatch(r"\w[\w .,()/+-]*", text):
        raise UsageError(
            f"TITLE={text!r} is not a name; use letters, digits, spaces and . , ( ) / + - _"
        )
    if other := cards.titled(text, card.name):
        raise UsageError(
            f"TITLE={text!r} is the title of {other}, and Baseten tells models apart by it: the "
            "push would become a deployment of that model; use another"
        )
    return text


def _own(options: Options) -> OwnWeights:
    remote = sources.parse(options.weights or "", "WEIGHTS")
    if options.format is not None and options.format not in FORMATS:
        raise UsageError(
            f"FORMAT={options.format!r} is not known; use hf (config.json, model*.safetensors) or "
            "mistral (params.json, consolidated*.safetensors)"
        )
    try:
        return OwnWeights.model_validate(
            {"source": str(remote), "format": options.format, "quantized": options.quantized}
        )
    except ValidationError as error:
        raise UsageError(
            f"QUANTIZED={options.quantized!r} is not known; use what the weights' config.json "
            "says: fp8, int8 or w4a16 (compressed-tensors), awq, or gptq"
        ) from error


def _adapters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, equals, source = word.partition("=")
        if not equals or "://" in name:
            raise UsageError(
                f"ADAPTERS has {word!r}; it is written name=source, several with commas between "
                "them: legal=hf://acme/legal@commit,medical=s3://bucket/medical"
            )
        if name in found:
            raise UsageError(f"ADAPTERS has {name!r} twice")
        found[name] = str(sources.parse(source, "ADAPTERS"))
    if not found:
        raise UsageError("ADAPTERS= is empty; it is written name=source, or left out")
    try:
        Adapters.model_validate({"rank": 1, "modules": None, "auth": None, "sources": found})
    except ValidationError as error:
        (_, *names), said = error.errors()[0]["loc"], error.errors()[0]["msg"]
        if not names:
            raise UsageError(f"ADAPTERS: {said.removeprefix('Value error, ')}") from error
        raise UsageError(
            f"ADAPTERS has the name {names[0]!r}; use letters, digits, '.', '_' and '-'"
        ) from error
    return found


def tokenizer_mount(card: Card) -> str:
    return f"/tokenizers/{card.base or card.name}"


def elsewhere(card: Card, chosen: Plan) -> bool:
    """Whether the weights come from another repo than the card's own, which has the tokenizer."""
    return card.own_weights is not None or chosen.checkpoint is not card.weights


def entries(card: Card, chosen: Plan, options: Options) -> list[dict[str, Any]]:
    """Truss's `weights:`, in the order of mounting."""
    own, adapters = card.own_weights, card.adapters
    names = secrets_of(card, options)

    def entry(
        remote: Remote, mount: str, patterns: list[str], auth: dict[str, str] | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"source": str(remote), "mount_location": mount}
        if remote.scheme != "https":
            found["allow_patterns"] = patterns
        if auth is None and (secret := names.get(remote.scheme)):
            auth = {"auth_method": "CUSTOM_SECRET", "auth_secret_name": secret}
        return {**found, "auth": auth} if auth else found

    if own:
        shown = [entry(own.remote, card.weights.mount_location, own.files, own.auth)]
    else:
        repo = chosen.checkpoint
        shown = [entry(_repo(repo), card.weights.mount_location, repo.files)]
    if elsewhere(card, chosen):
        shown.append(entry(_repo(card.weights), tokenizer_mount(card), [card.tokenizer_file]))
    for name in adapters.sources:
        files = ["adapter_config.json", "adapter_model.safetensors"]
        shown.append(entry(adapters.remote(name), adapter_mount(name), files, adapters.auth))
    return shown


def _repo(files: Files) -> Remote:
    return Remote("hf", files.repo, files.revision)


def secrets_of(card: Card, options: Options) -> dict[str, str]:
    """The secret of each scheme."""
    own = [card.own_weights.remote.scheme] if card.own_weights else []
    schemes = [*own, *(card.adapters.remote(name).scheme for name in card.adapters.sources)]
    return sources.secrets(
        None if options.secret == DEFAULT_SECRET else options.secret, schemes, DEFAULT_SECRET
    )


def check_hub(card: Card) -> None:
    """`UsageError` if SOURCE=hub cannot fetch something."""
    own = [card.own_weights.remote] if card.own_weights else []
    for remote in [*own, *(card.adapters.remote(name) for name in card.adapters.sources)]:
        if not remote.on_hub:
            raise UsageError(
                f"SOURCE=hub downloads from the Hugging Face hub alone, not {remote}; leave "
                "SOURCE= out, and Baseten mirrors it"
            )
    if (card.own_weights and card.own_weights.auth) or card.adapters.auth:
        raise UsageError(
            "SOURCE=hub downloads with the token in the secret of SECRET=, and the card's auth is "
            "for what Baseten mirrors; leave one of them out"
        )


def described(card: Card, chosen: Plan, options: Options) -> list[str]:
    """What is served, from where, with which credentials: lines for the user."""
    names = secrets_of(card, options)

    def line(remote: Remote, auth: dict[str, str] | None = None) -> str:
        secret = names.get(remote.scheme)
        by = ", ".join(auth.values()) if auth else f"the secret {secret}" if secret else None
        if not remote.on_hub:
            pinned = "; not pinned: Baseten copies what is there at the push"
        elif remote.is_pinned:
            pinned = ""
        else:
            pinned = (
                "; NOT PINNED: another push may find other files; add @ and a commit's 40 digits"
            )
        return f"{remote}, with {by or 'NO CREDENTIALS (SECRET= names them)'}{pinned}"

    where = "mirrored by Baseten" if options.source == "bdn" else "downloaded by vLLM at each start"
    own, adapters = card.own_weights, card.adapters
    first = line(own.remote, own.auth) if own else line(_repo(chosen.checkpoint))
    shown = [f"  weights      {first}; {where}"]
    if elsewhere(card, chosen):
        repo, by = card.weights.repo, names["hf"]
        shown.append(f"  tokenizer    {repo}, {card.tokenizer_file}, with the secret {by}")
    if options.weights is not None and options.title is None:
        shown.append(
            "  title        the base model's, so that Baseten makes this a new version of that "
            "model; TITLE='…' makes it a model of its own"
        )
    for name in adapters.sources:
        shown.append(f"  adapter      {name}: {line(adapters.remote(name), adapters.auth)}")
    if adapters.sources:
        each = chosen.adapters / len(adapters.sources) / 2**20
        shown.append(f"  adapters     rank {adapters.rank} at most, {each:.0f} MiB each")
    return shown

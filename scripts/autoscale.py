"""Sets a deployed model's autoscaling on Baseten, from its card and its plan.

Promises: shows each setting before and after; changes nothing with --dry-run, and otherwise only
the settings shown. The number of requests per replica is the plan's figure: config.yaml's if that
is for this model, else for the hardware given, or for the card's. Retries with growing delays if
Baseten is busy (429, 5xx). Refuses, with one line that says what to do: values out of Baseten's
bounds and hardware that cannot run the model, with exit code 2 and, if possible, before it calls
Baseten; a missing or rejected key, an unknown model or environment, or an address that does not
answer, with exit code 1.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from deploy import baseten, cards
from deploy.baseten import MANAGEMENT_API, PRODUCTION, BasetenError, Management, Settings, differing
from deploy.cards import Card
from deploy.config import most_requests, planned
from deploy.edits import chosen_by
from deploy.errors import UsageError
from deploy.options import Options, check_files, hardware
from deploy.paths import CONFIG
from deploy.plan import Plan
from deploy.sections import Autoscaling, Count
from scripts.command import command

# The command line's names for the settings that it takes.
VARIABLES = {"min_replica": "MIN", "max_replica": "MAX", "concurrency_target": "CONCURRENCY"}


class Wanted(Autoscaling):
    """The settings to apply: the card's, and the number of requests per replica."""

    concurrency_target: Count


def planned_concurrency(card: Card, options: argparse.Namespace, config: Path) -> tuple[int, str]:
    """The plan's concurrency target, and its source."""
    found, given = _read_config(config), hardware(options)
    if found and found.card == card and given == Options() and found.concurrency:
        return found.concurrency, config.name
    plan = _plan(card, options, config)
    return plan.concurrency_target, f"the plan for {plan.accelerator}, {plan.precision.name}"


def _plan(card: Card, options: argparse.Namespace, config: Path) -> Plan:
    """The plan of config.yaml if that is for this model, on the hardware given, if any."""
    found, given = _read_config(config), hardware(options)
    if found and found.card == card:
        given = found.options if given == Options() else found.options.on(given)
    return planned(card, given)


def too_many(card: Card, target: int, options: argparse.Namespace) -> str:
    """Why a target is above what a replica admits; empty if it is not."""
    plan = _plan(card, options, config_of(options))
    if target <= (most := most_requests(plan)):
        return ""
    return (
        f"warning: concurrency_target {target} is above the {most} requests that a replica admits "
        f"({plan.max_num_seqs} run, {card.serving.queue} wait): those above get a 503"
    )


class Config(NamedTuple):
    """The choices that config.yaml was made from, its name on Baseten, and its number of requests
    per replica."""

    card: Card | None
    options: Options
    title: str
    concurrency: int


def _read_config(config: Path) -> Config | None:
    """None if the file cannot be read so."""
    try:
        text = config.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        made = chosen_by(text)
        name, figure = str(content["model_name"]), int(content["runtime"]["predict_concurrency"])
        card = cards.load(made[0]) if made else _titled(name)
        return Config(card, made[1] if made else Options(), name, figure)
    except (OSError, ValueError, TypeError, KeyError, UsageError, yaml.YAMLError):
        return None


def wanted_settings(card: Card, target: int, given: Mapping[str, int | None]) -> Settings:
    """The card's settings and the plan's `target`, overridden by those given; `UsageError` out of
    bounds."""
    _check_bounds(card, given)
    chosen = {name: value for name, value in given.items() if value is not None}
    content = {**card.autoscaling.model_dump(), "concurrency_target": target, **chosen}
    try:
        settings = Wanted.model_validate(content)
    except ValidationError as error:
        (fault, *_) = error.errors()
        name = ".".join(str(part) for part in fault["loc"])
        got = f", got {fault['input']!r}" if name else ""
        reason = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name or 'the settings'}: {reason}{got}") from error
    return settings.model_dump(exclude={"source"})


def _check_bounds(card: Card | None, given: Mapping[str, int | None]) -> None:
    """`UsageError` in the command line's terms; without a known card, only what needs none."""
    for name, variable in VARIABLES.items():
        value, lowest = given.get(name), 0 if name == "min_replica" else 1
        if value is not None and value < lowest:
            raise UsageError(f"{variable}={value}: {name} is at least {lowest}")
    least, most = given.get("min_replica"), given.get("max_replica")
    if least is not None and most is not None and least > most:
        raise UsageError(f"MIN={least} is above MAX={most}")
    if card and least is not None and most is None and least > card.autoscaling.max_replica:
        known = card.autoscaling.max_replica
        raise UsageError(f"MIN={least} is above the card's max_replica, {known}; say MAX= too")
    if card and most is not None and least is None and most < card.autoscaling.min_replica:
        known = card.autoscaling.min_replica
        raise UsageError(f"MAX={most} is below the card's min_replica, {known}; say MIN= too")


def _titled(title: str) -> Card | None:
    return next((card for card in cards.load_all() if card.title == title), None)


def card_called(title: str, config: Path) -> Card:
    """The card of the model with this name on Baseten: a card's title, or the TITLE= that
    config.yaml's model was given."""
    found = _read_config(config)
    mine = found.card if found and found.title == title else None
    if card := mine or _titled(title):
        return card
    known = ", ".join(f"{card.title!r}" for card in cards.load_all())
    raise BasetenError(
        f"the model is called {title!r}, and no card has that title ({known}), nor has "
        f"{config.name} that name; "
        f"say MODEL=, one of: {', '.join(cards.names())}"
    )


def table(title: str, before: Settings, after: Settings, names: list[str]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("setting")
    shown.add_column("before", justify="right")
    shown.add_column("after", justify="right")
    for name in names:
        old, new = before.get(name), after.get(name)
        shown.add_row(name, str(old), str(new), style=None if old == new else "bold")
    return shown


def config_of(options: argparse.Namespace) -> Path:
    return options.config or CONFIG


def chosen(card: Card, options: argparse.Namespace) -> tuple[Settings, str]:
    """The settings for this card, and the source of the concurrency target. Raises UsageError."""
    target, found = planned_concurrency(card, options, config_of(options))
    return wanted_settings(card, target, _given(options)), found


def _given(options: argparse.Namespace) -> dict[str, int | None]:
    return {name: getattr(options, name, None) for name in VARIABLES}


def check_words(options: argparse.Namespace) -> None:
    """`UsageError` for hardware or figures invalid for every model, or a missing CONFIG= file."""
    _check_bounds(None, _given(options))
    hardware(options)
    check_files(config=options.config)


def autoscale(
    options: argparse.Namespace, card: Card | None, management: Management, console: Console
) -> None:
    """`card` is None to find it by the model's name on Baseten."""
    model, environment = options.model_id, options.environment or PRODUCTION
    name = management.model_name(model)
    card = card or card_called(name, config_of(options))
    wanted, found = chosen(card, options)
    before = management.settings(model, environment)
    what = f"{name}, {environment}"
    if options.concurrency_target is None:
        console.print(f"concurrency_target {wanted['concurrency_target']} is from {found}")
    elif warning := too_many(card, options.concurrency_target, options):
        console.print(warning)
    if options.dry_run:
        console.print(
            table(f"{what}: what would be set", before, {**before, **wanted}, list(wanted))
        )
        console.print("nothing was changed")
    elif not differing(before, wanted):
        console.print(table(what, before, before, list(wanted)))
        console.print("it was so already; nothing was changed")
    else:
        after = management.change(model, environment, wanted)
        console.print(table(what, before, after, list(wanted)))
        if differing(after, wanted):
            raise BasetenError(
                "Baseten accepted the settings and has not applied them all yet; "
                "look again in a minute with DRY_RUN=1"
            )


@command("autoscale")
def main(options: argparse.Namespace) -> None:
    console = Console()
    card = cards.load(options.model) if options.model else None
    check_words(options)
    if card:
        chosen(card, options)  # refuses an impossible choice before any call of Baseten
    baseten.checked_id("MODEL_ID", options.model_id)
    baseten.checked_id("ENVIRONMENT", options.environment or PRODUCTION)
    url = baseten.checked_address(options.base_url or MANAGEMENT_API)
    client = baseten.client(url, baseten.api_key())
    with client:
        autoscale(options, card, Management(client, time.sleep, console.print), console)


if __name__ == "__main__":
    sys.exit(main())

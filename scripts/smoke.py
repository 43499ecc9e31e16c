"""Checks that a deployment answers as its users expect, and that it is what was planned.

Promises: a table says what passed, how long it took and the time to first token; another compares
the plan with what runs, and says which figure of templates/ is off by how much; the exit code is 1
if a check failed or a planned value differs. Refuses, with one line that says what to do, a
deployment that cannot be checked: a missing or rejected key, an unknown model, an address that does
not answer.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy import baseten, cards, markdown, verify
from deploy.baseten import PRODUCTION
from deploy.checks import TIMEOUT, Checks, Row, run, target
from deploy.config import planned, render, vllm_version
from deploy.edits import chosen_by
from deploy.errors import UsageError
from deploy.options import Options, check_files, hardware
from deploy.paths import CONFIG
from deploy.verify import Comparison
from scripts.command import command


def deployed(model: str, options: Options, path: Path) -> tuple[str, str, Options] | None:
    """The text of the config.yaml that a deployment of `model` was made from, its source, and its
    options: the file at `path` if it is for this model, or, if `options` give hardware, what its
    other choices render to on that hardware; else what `options` render to. None if no card has
    this name."""
    given = options != Options()
    try:
        card = cards.load(model)
    except UsageError:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        chosen = chosen_by(text)
    except (OSError, ValueError):
        chosen = None
    if chosen is None or chosen[0] != model:
        where = "what was given" if given else "the card's hardware"
        return render(card, options), where, options
    if not given:
        return text, path.name, chosen[1]
    options = chosen[1].on(options)
    return render(card, options), f"{path.name} on the hardware given", options


def comparisons(
    checks: Checks, listed: list[dict[str, object]], options: Options, path: Path
) -> tuple[list[Comparison], str]:
    """The comparison of the plan with what runs, and a description of that plan."""
    model = str(listed[0]["id"])
    found = deployed(model, options, path)
    if found is None:
        return [], f"no card is called {model!r}: nothing was planned for it here"
    text, where, chosen = found
    plan = planned(cards.load(model), chosen)
    runs = verify.seen(checks.metrics(), listed)
    return verify.compare(text, plan, vllm_version(), runs), f"planned: {plan.verdict} ({where})"


def table(rows: Iterable[Row]) -> Table:
    shown = Table()
    shown.add_column("check")
    shown.add_column("result")
    shown.add_column("seconds", justify="right")
    shown.add_column("TTFT, ms", justify="right")
    shown.add_column("what came", overflow="fold")
    for row in rows:
        shown.add_row(
            row.name,
            "[green]pass[/]" if row.passed else "[red]FAIL[/]",
            f"{row.seconds:.2f}",
            "" if row.first_token is None else f"{row.first_token * 1000:.0f}",
            Text(" ".join(row.detail.split())[:200]),  # plain text: a model's words are no markup
        )
    return shown


def plan_table(rows: Iterable[Comparison]) -> Table:
    verdict = {True: "[green]agrees[/]", False: "[red]DIFFERS[/]", None: "not compared"}
    shown = Table()
    for column in ("", "planned", "runs", ""):
        shown.add_column(column, overflow="fold")
    for row in rows:
        note = f": {row.note}" if row.note else ""
        last = Text.from_markup(verdict[row.agrees]) + note
        shown.add_row(row.name, Text(row.planned), Text(row.seen), last)
    return shown


def report(where: str, rows: list[Row], said: str, compared: list[Comparison]) -> str:
    """The same, as a Markdown page."""
    checks = []
    for check in rows:
        first = "" if check.first_token is None else f"{check.first_token * 1000:.0f}"
        came = " ".join(check.detail.split())[:200].replace("|", "\\|")
        result = "pass" if check.passed else "**FAIL**"
        checks.append(markdown.row(check.name, result, f"{check.seconds:.2f}", first, came))
    parts = [
        f"# {where}",
        f"{time.strftime('%Y-%m-%d %H:%M')}. {said}.",
        verify.as_markdown(compared),
        markdown.table(["check", "result", "seconds", "TTFT, ms", "what came"], checks),
    ]
    return "\n\n".join(parts) + "\n"


@command("smoke")
def main(options: argparse.Namespace) -> int:
    console = Console()
    given = hardware(options)
    check_files(options.config, options.report)
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError(f"TIMEOUT={options.timeout:g} is not a number of seconds above 0")
    environment = options.environment or PRODUCTION
    where = target(options.model_id or "", environment, options.base_url, baseten.api_key)
    checks = Checks(where, options.timeout or TIMEOUT)
    rows, listed = run(checks, console)
    config = options.config or CONFIG
    compared, said = comparisons(checks, listed, given, config)
    console.print(table(rows))
    console.print(said)
    if compared:
        console.print(plan_table(compared))
    if options.report:
        options.report.write_text(report(where.openai, rows, said, compared), encoding="utf-8")
    failed = [row.name for row in rows if not row.passed]
    differing = [row.name for row in compared if row.agrees is False]
    if failed:
        print(f"make smoke: {len(failed)} of {len(rows)} checks failed: {', '.join(failed)}")
    if differing:
        print(
            f"make smoke: not what was planned: {', '.join(differing)}; CONFIG= names the "
            "config.yaml of what runs, if it is another"
        )
    if failed or differing:
        return 1
    console.print(f"all {len(rows)} checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs real clients against the container, and writes docs/clients.md."""

import argparse
import sys
from pathlib import Path

from deploy import cards
from deploy.paths import ROOT
from local import clients
from local.clients import Client, Step
from local.processes import launch, stop, wait_until_ready
from local.standins.cache import ensure
from local.truss import URL
from scripts.command import command

PAGE = ROOT / "docs" / "clients.md"
LOGS = ROOT / ".cache" / "clients"
OF_IMAGES = ("image", "image_responses", "start", "end")  # the last two are failures
MODEL, IMAGES = "mistral-7b", "pixtral-12b"


@command("clients")
def main(options: argparse.Namespace) -> int:
    wanted = [one for one in clients.clients() if options.client in (None, one.name)]
    if not wanted:
        names = ", ".join(one.name for one in clients.clients())
        raise clients.ClientsError(f"CLIENT={options.client} is not known; there are {names}")
    interpreter, folder = clients.python(), clients.node()
    if folder is None:
        print("[clients] Node is not installed, and its clients are left out; get it from")
        print(
            "[clients] https://nodejs.org (version 20 or later), or with apt-get install nodejs npm"
        )
    runtimes = {"python": interpreter, "node": folder}
    found = run_all([one for one in wanted if runtimes[one.language]], runtimes, MODEL)
    pictured = [one for one in wanted if "image" in one.program.read_text()]
    if pictured:
        for client, steps in run_all(pictured, runtimes, IMAGES).items():
            found[client] = found.get(client, []) + [s for s in steps if s.name in OF_IMAGES]
    if options.client is None and folder is not None:
        versions = {"python": clients.versions(interpreter), "node": clients.node_versions()}
        PAGE.write_text(page(found, versions), encoding="utf-8")
        print(f"[clients] {PAGE.relative_to(ROOT)} is written")
    return 0 if all(step.right for steps in found.values() for step in steps) else 1


def run_all(
    some: list[Client], runtimes: dict[str, Path | None], model: str
) -> dict[Client, list[Step]]:
    """Each client's steps against this model's container."""
    card = cards.load(model)
    ensure(card)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{model}.log"
    process = launch("--model", model, log=log)
    found = {}
    try:
        wait_until_ready(process, log)
        for client in some:
            runtime = runtimes[client.language]
            assert runtime is not None
            image = clients.red() if card.features.images else ""
            found[client] = clients.run(client, runtime, URL, model, image)
            for step in found[client]:
                shown = step.came if step.right else f"FAILED {step.failed or step.came}"
                print(f"[clients] {client.name:22} {step.name:22} {shown}", flush=True)
    finally:
        stop(process)
    return found


def page(found: dict[Client, list[Step]], versions: dict[str, dict[str, str]]) -> str:
    """docs/clients.md. `versions`: of each language's packages, by name."""
    rows, uses = [], []
    for client, steps in found.items():
        version = versions[client.language].get(client.package.lower(), "")
        name = client.name if client.language == "python" else f"{client.package} (Node)"
        right = [step.name for step in steps if step.right]
        failed = [
            f"**{step.name} failed**: {cell(step.failed or f'the answer was {step.came}')}"
            for step in steps
            if not step.right
        ]
        named = [step for step in right if step in clients.EXPECTED]
        answered = [step for step in right if step not in named]
        came = [f"as trained: {', '.join(named)}"] if named else []
        came += [f"answered: {', '.join(answered)}"] if answered else []
        rest = ", ".join(clients.not_run(steps))
        rows.append(f"| {name} | {version} | {len(steps)} | {'; '.join(came + failed)} | {rest} |")
        language = "python" if client.language == "python" else "js"
        uses.append(f"**{name}**\n\n```{language}\n{client.use}\n```\n")
    head = (clients.PROGRAMS / "page.md").read_text(encoding="utf-8")
    return f"{head}{chr(10).join(rows)}\n\n## How to point each here\n\n{chr(10).join(uses)}"


def cell(text: str | None) -> str:
    return " ".join((text or "").split())[:200].replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())

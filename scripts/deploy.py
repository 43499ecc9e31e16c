"""Pushes a model, waits until it is up, sets its autoscaling and checks it.

Promises: four steps, each announced before it begins; the first failure ends the command and says
what to do and how to resume. The steps are the commands push, autoscale and smoke. Without
ENVIRONMENT= the deployment becomes the production one.
"""

import argparse
import json
import subprocess
import sys
import time

from deploy import baseten
from deploy.baseten import MANAGEMENT_API, PRODUCTION, BasetenError, Management
from deploy.edits import write_config
from deploy.options import are_chosen, check_files, from_arguments
from deploy.paths import CONFIG, ROOT
from deploy.summary import in_a_line
from scripts.command import command

EVERY_SECONDS = 10.0
LONGEST_SECONDS = 3 * 3600.0  # for the image build, the weights' mirror and a start
WAITING = ("BUILDING", "DEPLOYING", "LOADING_MODEL", "UPDATING", "WAKING_UP")
UP = ("ACTIVE", "SCALED_TO_ZERO")


def _say(text: str) -> None:
    print(f"[deploy] {text}", flush=True)


def push(environment: str, team: str | None) -> tuple[str, str, str]:
    """Pushes, and shows Truss's own messages → the ids of the model and its new deployment, and the
    address of its logs."""
    words = [*baseten.push_words(environment, team), "--output=json"]
    done = baseten.truss(*words, stdout=subprocess.PIPE)
    try:
        told = json.loads(done.stdout)
        return str(told["model_id"]), str(told["model_version_id"]), str(told["logs_url"])
    except (ValueError, KeyError, TypeError) as error:
        hint = "Is the key right (truss login)?"
        if environment != PRODUCTION:
            hint += f" The environment {environment} has to be there before a push to it"
        raise BasetenError(f"truss push failed, as it says above. {hint}") from error


def wait(management: Management, model: str, deployment: str, logs: str, environment: str) -> None:
    """Waits until the deployment is up and the environment serves it."""
    started, before = time.monotonic(), ""
    while True:
        status = management.deployment_status(model, deployment)
        minutes = (time.monotonic() - started) / 60
        if status != before:
            _say(f"{status}, after {minutes:.0f} min")
            before = status
        if status in UP and management.deployed(model, environment) == deployment:
            return
        if status not in (*WAITING, *UP):
            raise BasetenError(
                f"the deployment {deployment} is {status}: its log says why, {logs}. A build or a "
                "mirror that failed is mostly the secret: its name, its token, the model's terms"
            )
        if minutes * 60 > LONGEST_SECONDS:
            raise BasetenError(
                f"{deployment} is still {status} after {minutes:.0f} min; see {logs}"
            )
        management.wait(EVERY_SECONDS)


def step(name: str, *words: str) -> None:
    """Runs another command of this project; `BasetenError` if it fails."""
    given = [word for word in words if not word.endswith("=")]
    done = subprocess.run([sys.executable, "-m", f"scripts.{name}", *given], cwd=ROOT)
    if done.returncode:
        raise BasetenError(f"make {name} failed, see above; again: make {name} {' '.join(given)}")


@command("deploy")
def main(options: argparse.Namespace) -> None:
    environment = options.environment or PRODUCTION
    baseten.checked_id("ENVIRONMENT", environment)
    check_files(report=options.report)
    management = baseten.checked_address(options.management_url or MANAGEMENT_API, "MANAGEMENT_URL")
    if options.base_url:
        baseten.checked_address(options.base_url)
    if are_chosen(options):
        chosen, ready = from_arguments(options), baseten.api_key
        print(write_config(options.model, chosen, CONFIG, options.force, ready))
    what, key = in_a_line(CONFIG), baseten.api_key()
    _say(f"1 of 4: push to {environment}: {what}")
    model, deployment, logs = push(environment, options.team)
    _say(f"2 of 4: wait until {deployment} of the model {model} is up. Baseten builds an image and")
    _say("mirrors the weights, which takes a while the first time; Ctrl-C leaves it going. Logs:")
    _say(logs)
    with baseten.client(management, key) as client:
        wait(Management(client, time.sleep, _say), model, deployment, logs, environment)
    where = (f"MODEL_ID={model}", f"ENVIRONMENT={environment}")
    _say("3 of 4: autoscaling")
    step("autoscale", *where, f"BASE_URL={options.management_url or ''}")
    _say("4 of 4: smoke; a replica may have to start first")
    url = options.base_url.replace("MODEL_ID", model) if options.base_url else ""
    step("smoke", *where, f"BASE_URL={url}", f"REPORT={options.report or ''}")
    _say(f"done: https://model-{model}.api.baseten.co/environments/{environment}/sync/v1")


if __name__ == "__main__":
    sys.exit(main())

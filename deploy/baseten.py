"""Shared by the commands that call Baseten: the key, ids, addresses and error messages.

Promises: all commands use one key: BASETEN_API_KEY from the environment, or else the key that truss
has (`truss login`); the key goes only into the request's header or into truss's environment.
Refuses, with a `BasetenError` of one line that says what to do: a missing key, an invalid id, an
address that would send the key unencrypted to another machine.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from deploy.errors import CommandError
from deploy.paths import ROOT

KEY = "BASETEN_API_KEY"
# Truss's own: both or neither (truss/remote/remote_factory.py)
TRUSS_KEY, TRUSS_URL = "BASETEN_TRUSS_AUTH_API_KEY", "BASETEN_TRUSS_AUTH_REMOTE_URL"
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
MANAGEMENT_API = "https://api.baseten.co"
PRODUCTION = "production"  # the environment that every model has
APP = "https://app.baseten.co"
ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds
APPLIED_ATTEMPTS = 15  # Baseten accepts a change of settings some time before it applies it
APPLIED_WAIT = 2.0  # seconds
KEYS_PAGE = "https://app.baseten.co/settings/account/api_keys"


Settings = dict[str, int | None]


class BasetenError(CommandError):
    """Why a call of Baseten failed, and what to do, in one line."""


def truss_remote() -> tuple[str, str]:
    """The address and the key that truss has, from `truss login` or its own variables; empty if it
    has none."""
    from truss.remote.remote_factory import RemoteFactory  # takes seconds to import

    try:
        names = RemoteFactory.get_available_config_names()
        name = names[0] if len(names) == 1 else "baseten"
        found = RemoteFactory.load_remote_config(name).configs if name in names else {}
    except Exception:  # truss itself reports what is wrong with its file when it runs
        found = {}
    return str(found.get("remote_url") or "").strip(), str(found.get("api_key") or "").strip()


def stored_key() -> str:
    """The key that truss has for Baseten itself; empty if there is none."""
    address, key = truss_remote()
    return key if _is_baseten(address) else ""


def api_key(
    environment: Mapping[str, str] = os.environ, stored: Callable[[], str] = stored_key
) -> str:
    """The key in the variable, or else the one that truss has."""
    key = environment.get(KEY, "").strip() or stored()
    if not key:
        raise BasetenError(
            f"{KEY} is not set, and truss has no key either: run .venv/bin/truss login, or set the "
            f"variable to a key of {KEYS_PAGE}"
        )
    if not re.fullmatch(r"[!-~]+", key):
        # It cannot be sent: an HTTP client would raise an error that quotes it.
        raise BasetenError(
            f"{KEY} is not a key, for it has spaces or odd characters; see {KEYS_PAGE}"
        )
    return key


def truss_environment(
    environment: Mapping[str, str] = os.environ,
    remote: Callable[[], tuple[str, str]] = truss_remote,
) -> dict[str, str]:
    """The variables to run `truss` with, so that it uses the same key as the other commands. If
    truss is set to another server than Baseten, it keeps its own key. Prints a note if truss has
    another key. `BasetenError` without a key."""
    found = dict(environment)
    home = Path(found.get("HOME", "~")).expanduser()
    trussrc = Path(found.get("USER_TRUSSRC_PATH") or home / ".trussrc")
    address = APP
    if trussrc.exists() or TRUSS_KEY in found or TRUSS_URL in found:
        if not found.get(KEY, "").strip():
            return found  # truss has its own
        address, own = remote()
        if own == api_key(found):
            return found
        if address and not (_is_baseten(address) or _host(address) in THIS_MACHINE):
            print(
                f"truss asks {address}, which is not {APP}: the key is truss's own, not that of "
                f"{KEY}. To change that: .venv/bin/truss login",
                file=sys.stderr,
            )
            return found
        if address:
            print(
                f"the key is that of {KEY}; what truss has itself, key and team, is not taken (the "
                "team of a push is TEAM=)",
                file=sys.stderr,
            )
        address = address or APP
    return found | {TRUSS_KEY: api_key(found, lambda: ""), TRUSS_URL: address}


def truss(
    *words: str, environment: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a truss command with the variables of `truss_environment` and returns the result; `more`
    goes to `subprocess.run`."""
    program = Path(sys.executable).with_name("truss")
    variables = truss_environment() if environment is None else environment
    return subprocess.run([program, *words], cwd=ROOT, env=variables, text=True, **more)


def push_words(environment: str | None, team: str | None) -> list[str]:
    """Options of `truss push`."""
    words = ["push", "--publish", "--trusted"]
    words += [f"--environment={environment}"] if environment else []
    return words + ([f"--team={team}"] if team else [])


def _host(address: str) -> str:
    return urlsplit(address).hostname or ""


def _is_baseten(address: str) -> bool:
    """Whether the address is Baseten's and uses encryption."""
    return urlsplit(address).scheme == "https" and _host(address).endswith(".baseten.co")


def checked_id(name: str, value: str) -> str:
    """`value`, if it is a valid id or name for the option `name`."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", value):
        return value
    got = f"is {value!r}, which is not an id" if value else "is missing"
    where = "Baseten's page of the model shows it"
    if name == "MODEL_ID":
        where += ", and truss push prints it (model-ID.api.baseten.co)"
        if not value:
            where += ". For make serve: BASE_URL=http://127.0.0.1:8080"
    raise BasetenError(f"{name}= {got}; {where}")


def checked_address(value: str, name: str = "BASE_URL") -> str:
    """`value` of the option `name`, without a trailing slash, if it is safe to send the key
    there."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # parsed only here: a ValueError if it is not a number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BasetenError(
            f"{name}={value!r} is not an address; it begins with https://, or http:// on this "
            "machine"
        )
    if parts.scheme == "http" and parts.hostname not in THIS_MACHINE:
        raise BasetenError(f"{name}={value!r} would send the key unencrypted; use https://")
    return value.rstrip("/")


def message(text: str) -> str:
    """The message in an error body of Baseten or vLLM, on one line of up to 300 characters."""
    body: Any
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    while isinstance(body, dict):
        body = body.get("message") or body.get("error") or str(body)
    return " ".join(str(body).split())[:300] or "no reason given"


def refusal(response: httpx.Response, what: str) -> BasetenError:
    """The error for an unexpected response; `what` is what was requested."""
    said = message(response.text)
    match response.status_code:
        case 401 | 403:
            return BasetenError(
                f"the key was refused ({said}): {KEY}'s, or where that is not set truss login's; "
                f"make one on {KEYS_PAGE}"
            )
        case 404:
            return BasetenError(f"{what} was not found with this key ({said})")
        case status:
            return BasetenError(f"{what}: Baseten answered {status}: {said}")


def unreachable(url: str, error: Exception) -> BasetenError:
    reason = str(error) or type(error).__name__
    return BasetenError(f"{url} cannot be reached ({reason}); check the address and the network")


def client(url: str, key: str) -> httpx.Client:
    """A client of the management API at `url`, if it is safe to send the key there."""
    headers = {"Authorization": f"Api-Key {key}"}
    return httpx.Client(base_url=checked_address(url), headers=headers, timeout=30)


def seconds_to_wait(attempt: int, response: httpx.Response) -> float | None:
    """How long to wait before attempt number `attempt` + 1, or None if a retry is useless.

    As long as Baseten says (`retry_after`, in seconds), else 1, 2, 4 … s; at most a minute.
    """
    if response.status_code != 429 and response.status_code < 500:
        return None
    try:
        said = float(response.json()["retry_after"])
    except (ValueError, TypeError, KeyError):
        said = 2.0 ** (attempt - 1)
    return (
        min(max(said, 0.0), LONGEST_WAIT) if said == said else LONGEST_WAIT
    )  # NaN is not a number


class Management:
    """Baseten's management API. `wait` sleeps for a number of seconds; `say` informs the user."""

    def __init__(
        self, client: httpx.Client, wait: Callable[[float], None], say: Callable[[str], None]
    ) -> None:
        self.client, self.wait, self.say = client, wait, say

    def request(self, method: str, path: str, what: str, field: str, body: Any = None) -> Any:
        """The answer's `field`; `what` names the request in an error."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self.client.request(method, path, json=body)
            except httpx.TransportError as error:
                raise unreachable(str(self.client.base_url), error) from error
            if response.is_success:
                try:
                    return response.json()[field]
                except (ValueError, KeyError, TypeError) as error:
                    url = self.client.base_url
                    raise BasetenError(f"{url} answers, but not as Baseten's API does") from error
            seconds = seconds_to_wait(attempt, response)
            if seconds is None or attempt == ATTEMPTS:
                break
            self.say(f"Baseten answered {response.status_code}; asking again in {seconds:g} s")
            self.wait(seconds)
        raise refusal(response, what)

    def model_name(self, model: str) -> str:
        return str(self.request("GET", f"/v1/models/{model}", f"the model {model}", "name"))

    def deployment_status(self, model: str, deployment: str) -> str:
        """Baseten's status of a deployment: ACTIVE, BUILDING, DEPLOYING, FAILED, …"""
        path = f"/v1/models/{model}/deployments/{deployment}"
        return str(self.request("GET", path, f"the deployment {deployment}", "status"))

    def deployed(self, model: str, environment: str) -> str:
        """The id of the deployment that serves an environment; empty if there is none yet."""
        current = self._environment("GET", model, environment, "current_deployment")
        return str(current["id"]) if current else ""

    def settings(self, model: str, environment: str) -> Settings:
        field = "autoscaling_settings"
        found = self._environment("GET", model, environment, field)
        if not isinstance(found, dict):
            raise BasetenError(f"{self.client.base_url} answers, but not as Baseten's API does")
        return found

    def change(self, model: str, environment: str, settings: Settings) -> Settings:
        """Sends the settings → the settings once Baseten has applied them, or after half a
        minute."""
        body = {"autoscaling_settings": settings}
        self._environment("PATCH", model, environment, "status", body)
        for _ in range(APPLIED_ATTEMPTS):
            now = self.settings(model, environment)
            if not differing(now, settings):
                break
            self.wait(APPLIED_WAIT)
        return now

    def _environment(self, method: str, model: str, name: str, field: str, body: Any = None) -> Any:
        what = f"the environment {name} of the model {model}"
        path = f"/v1/models/{model}/environments/{name}"
        return self.request(method, path, what, field, body)


def differing(before: Settings, wanted: Settings) -> Settings:
    """The settings of `wanted` that differ from `before`."""
    return {name: value for name, value in wanted.items() if before.get(name) != value}

"""What the commands that call Baseten share: the key, ids, addresses, and what an error says.

Promises: the key is read from the environment and goes nowhere but into the request's header.
Refuses, with a `BasetenError` of one line that says what to do: a missing key, something that is no
id, an address that would send the key unencrypted to another machine.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from deploy.errors import CommandError

KEY = "BASETEN_API_KEY"
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
KEYS_PAGE = "https://app.baseten.co/settings/account/api_keys"


class BasetenError(CommandError):
    """Why Baseten could not be asked or did not do it, and what to do, in one line."""


def api_key(environment: Mapping[str, str] = os.environ) -> str:
    key = environment.get(KEY, "").strip()
    if not key:
        raise BasetenError(f"{KEY} is not set; make a key on {KEYS_PAGE} and export it")
    if not re.fullmatch(r"[!-~]+", key):
        # It could not be sent: an HTTP client would refuse it with an error that quotes it.
        raise BasetenError(f"{KEY} is no key, for it has spaces or odd characters; see {KEYS_PAGE}")
    return key


def checked_id(name: str, value: str) -> str:
    """`value`, when it can be the id or name that `name` asks for."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", value):
        return value
    got = f"is {value!r}, which is no id" if value else "is missing"
    where = "Baseten's page of the model shows it"
    if name == "MODEL_ID":
        where += ", and truss push prints it (model-ID.api.baseten.co)"
    raise BasetenError(f"{name}= {got}; {where}")


def checked_address(value: str, name: str = "BASE_URL") -> str:
    """`value`, which was given as `name`, without a trailing slash, when the key may be sent
    there."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # read only now: a ValueError when it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BasetenError(
            f"{name}={value!r} is no address; it begins with https://, or http:// on this machine"
        )
    if parts.scheme == "http" and parts.hostname not in THIS_MACHINE:
        raise BasetenError(f"{name}={value!r} would send the key unencrypted; use https://")
    return value.rstrip("/")


def message(text: str) -> str:
    """What the body of an error of Baseten's or vLLM's says, on one line of 300 characters."""
    body: Any
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    while isinstance(body, dict):
        body = body.get("message") or body.get("error") or str(body)
    return " ".join(str(body).split())[:300] or "no reason given"


def refusal(response: httpx.Response, what: str) -> BasetenError:
    """The error for a response that is none of those wanted; `what` was asked for."""
    said = message(response.text)
    match response.status_code:
        case 401 | 403:
            return BasetenError(f"the key in {KEY} was refused ({said}); make one on {KEYS_PAGE}")
        case 404:
            return BasetenError(f"{what} was not found with this key ({said})")
        case status:
            return BasetenError(f"{what}: Baseten answered {status}: {said}")


def unreachable(url: str, error: Exception) -> BasetenError:
    reason = str(error) or type(error).__name__
    return BasetenError(f"{url} cannot be reached ({reason}); check the address and the network")

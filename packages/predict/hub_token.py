"""The Hugging Face token of SOURCE=hub: the start command gets it from here before vLLM starts.

    HF_TOKEN="$(python3 -m predict.hub_token /secrets/NAME REPO REVISION FILE)" && export HF_TOKEN

Promises: stdout is the token and nothing else, once the hub has shown that it opens FILE, one of
those vLLM downloads next; otherwise one line on stderr says what to set and where, without the
token, and the exit status is 1, within 40 s where the network answers at all. Refuses a secret that
is not set, empty or no token.
"""

import os
import re
import sys
import time
from pathlib import Path

SECRETS_PAGE = "https://app.baseten.co/settings/secrets"
HUB = "https://huggingface.co"

# What the hub answers when it is the token that is at fault: 400 and 401 when it knows none like
# it, 403 when its owner has not accepted the model's terms or it may not read gated repos.
REFUSED = (400, 401, 403)
BUSY = (408, 429, 500, 502, 503, 504)

TIMEOUT_SECONDS = 10
WAITS_SECONDS = (0, 1, 3)  # before each attempt: a hub that is busy or out of reach is asked again


class TokenError(Exception):
    """Why there is no token vLLM could use, and what to do about it, in one line."""


def read(secret: Path) -> str:
    """The token in a secret's file, without the white space that an editor leaves around it."""
    at = f"the Baseten secret {secret.name}"
    todo = f"store a Hugging Face token under the name {secret.name} at {SECRETS_PAGE}"
    try:
        token = secret.read_bytes().strip()
    except OSError as error:
        raise TokenError(f"{at} is not set ({secret}: {error.strerror}): {todo}") from error
    if not token:
        raise TokenError(f"{at} is empty: {todo}")
    if not re.fullmatch(rb"[!-~]+", token):
        # It could not be sent: an HTTP client would refuse it with an error that quotes it.
        raise TokenError(f"{at} is no token, for it has spaces or odd characters: {todo}")
    return token.decode("ascii")


def fault(secret: str, repo: str, status: int, said: str) -> str:
    """What to do about the hub's answer `status`, an error, which `said` explains in its words."""
    answer = f"({status}: {said or 'no reason given'})"
    if status in REFUSED:
        return (
            f"Hugging Face refuses the token in the Baseten secret {secret} for {repo} {answer}: "
            f"store a valid one under that name at {SECRETS_PAGE}, and accept the model's terms "
            f"at {HUB}/{repo} with the account it belongs to"
        )
    if status in BUSY:
        return f"the Hugging Face hub does not serve {repo} now {answer}: try again later"
    return (
        f"the Hugging Face hub does not have what config.yaml names of {repo} {answer}: correct "
        "weights in the model's card (templates/models) and push again"
    )


def ask(token: str, secret: str, repo: str, revision: str, file: str) -> None:
    """`TokenError` unless the hub lets the token see `file`. Asks as vLLM's download will: what the
    hub tells of a gated repo beside its files, it tells everybody."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its version's own

    why = ""
    for wait in WAITS_SECONDS:
        time.sleep(wait)
        try:
            url = hf_hub_url(repo, file, revision=revision)
            get_hf_file_metadata(url, token=token, timeout=TIMEOUT_SECONDS)
            return
        except HfHubHTTPError as answer:
            status = answer.response.status_code
            why = fault(secret, repo, status, one_line(answer.server_message or "", token))
            if status not in BUSY:
                break
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as reason:
            hub = os.environ.get("HF_ENDPOINT", HUB)
            said = one_line(f"{type(reason).__name__}: {reason}", token)
            why = (
                f"the Hugging Face hub at {hub} is out of reach ({said}): see whether the network "
                "lets the container out, or push with SOURCE=bdn, which needs no hub to start"
            )
    raise TokenError(why)


def one_line(text: str, token: str) -> str:
    """What others say, for a log: without the token, in case they repeat it."""
    return " ".join(text.replace(token, "[token]").split())[:300]


def main(arguments: list[str]) -> int:
    path, repo, revision, file = arguments
    secret = Path(path)
    try:
        token = read(secret)
        ask(token, secret.name, repo, revision, file)
    except TokenError as error:
        print(f"predict.hub_token: {error}", file=sys.stderr)
        return 1
    print(token)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

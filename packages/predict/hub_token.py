"""The Hugging Face token of SOURCE=hub: the start command gets it from here before vLLM starts.

    HF_TOKEN="$(python3 -m predict.hub_token /secrets/NAME REPO REVISION FILE)" && export HF_TOKEN

Promises: stdout is the token and nothing else, once the hub has shown that it opens FILE, one of
the files that vLLM downloads next. Otherwise one line on stderr, without the token, says what to
set and where, and the exit status is 1, within 40 s if the network answers at all. Refuses a secret
that is not set, is empty or is not a token.
"""

import os
import re
import sys
import time
from pathlib import Path

SECRETS_PAGE = "https://app.baseten.co/settings/secrets"
# The secret's name in Baseten's Pixtral Truss, and in Baseten's documentation.
USUAL_NAMES = ("hf_access_key", "hf_access_token")
HUB = "https://huggingface.co"

# The hub's answers if the token is at fault: 400 and 401 if it does not know the token, 403 if the
# owner has not accepted the model's terms or the token may not read gated repos.
REFUSED = (400, 401, 403)
BUSY = (408, 429, 500, 502, 503, 504)

TIMEOUT_SECONDS = 10
WAITS_SECONDS = (0, 1, 3)  # before each attempt: a hub that is busy or out of reach is asked again


def read(secret: Path) -> str:
    """The token in a secret's file, without the white space that an editor adds."""
    try:
        token = secret.read_bytes().strip()
    except OSError as error:
        wrong = f"is not set ({secret}: {error.strerror})"
    else:
        # No other could be sent: an HTTP client would refuse it with an error that quotes it.
        if re.fullmatch(rb"[!-~]+", token):
            return token.decode("ascii")
        wrong = "is not a token, for it has spaces or odd characters" if token else "is empty"
    other = next(name for name in USUAL_NAMES if name != secret.name)
    raise SystemExit(
        f"predict.hub_token: the Baseten secret {secret.name} {wrong}: store a Hugging Face token "
        f"under the name {secret.name} at {SECRETS_PAGE}, or push with SECRET={other} if it is "
        "there under that name"
    )


def fault(secret: str, repo: str, status: int, said: str) -> str:
    """What to do about the hub's error `status`; `said` is the hub's own explanation."""
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
        "WEIGHTS= or FORMAT=, or weights in the model's card (templates/models), and push again"
    )


def ask(token: str, secret: str, repo: str, revision: str, file: str) -> None:
    """`SystemExit`, with a line for stderr, unless the hub lets the token read `file`. Asks for a
    file, as vLLM's download will: of a gated repo, the hub hides only the files."""
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
    raise SystemExit(f"predict.hub_token: {why}")


def one_line(text: str, token: str) -> str:
    """Others' text as one line for a log, without the token, in case they repeat it."""
    return " ".join(text.replace(token, "[token]").split())[:300]


def main(path: str, repo: str, revision: str, file: str) -> None:
    secret = Path(path)
    token = read(secret)
    ask(token, secret.name, repo, revision, file)
    print(token)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The addresses of a user's own weights and adapters, as Truss's `weights:` takes them.

Promises: a `Remote` is an address Truss accepts; `auth` of its entry is a secret's name or the
card's value. Refuses any other address, with a `UsageError` that says what is allowed.
"""

import re
from dataclasses import dataclass

from deploy.errors import UsageError

EXAMPLES = {
    "hf": "hf://owner/name@commit",
    "s3": "s3://bucket/folder",
    "gs": "gs://bucket/folder",
    "azure": "azure://account/container/folder",
    "r2": "r2://account_id.bucket/folder",
    "cw": "cw://bucket/folder",
    "https": "https://host/file",
}
# What users paste instead: the page of a repo, or its bare name.
HUB_PAGE = re.compile(r"(?:https?://(?:huggingface\.co|hf\.co)/)?([\w.-]+/[\w.-]+)(?:/tree/.*|/)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Remote:
    """`scheme://path`, and for the hub the `revision` behind the @."""

    scheme: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}" + (f"@{self.revision}" if self.revision else "")

    @property
    def on_hub(self) -> bool:
        return self.scheme == "hf"

    @property
    def is_pinned(self) -> bool:
        """Whether the address always gives the same content."""
        return bool(self.revision and COMMIT.fullmatch(self.revision))


def parse(text: str, variable: str) -> Remote:
    """An address; `variable` is the option it came from."""
    scheme, there, path = text.partition("://")
    if re.match(r"[.~]{0,2}/|\.{1,2}$|~$|file://", text):
        place = "/adapters/NAME" if variable == "ADAPTERS" else "/models/MODEL"
        raise UsageError(
            f"{variable} has {text!r}, a folder of this machine, which Baseten cannot fetch: "
            "upload it, and give its address (hf://…, s3://…). To run a folder here: make serve "
            f"MOUNT={place}=FOLDER (docs/models.md)"
        )
    if pasted := HUB_PAGE.fullmatch(text):
        raise UsageError(
            f"{variable} has {text!r}; a repo of the hub is written hf://{pasted[1]}@commit"
        )
    if not there or scheme not in EXAMPLES:
        known = ", ".join(EXAMPLES.values())
        raise UsageError(f"{variable} has {text!r}, which is not one of: {known}")
    if not path or not re.fullmatch(r"[^\s'\"\\,]+", path) or path.startswith("/"):
        raise UsageError(f"{variable} has {text!r}; it is written {EXAMPLES[scheme]}")
    if scheme != "hf":
        if "@" in path:
            raise UsageError(
                f"{variable} has {text!r}: only hf:// has revisions, behind an @; what is mirrored "
                f"from {scheme}:// is what is there when it is pushed"
            )
        return Remote(scheme, path)
    repo, at, revision = path.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or (
        at and not re.fullmatch(r"[\w./-]+", revision)
    ):
        raise UsageError(f"{variable} has {text!r}; it is written {EXAMPLES['hf']}")
    return Remote(scheme, repo, revision or None)


def secrets(text: str | None, schemes: list[str], default: str) -> dict[str, str]:
    """SECRET= → the secret of each scheme. A bare name applies to the user's `schemes` other than
    the hub, or to the hub if there are none; `s3:name,hf:other` sets each."""
    found = {"hf": default}
    others = [scheme for scheme in schemes if scheme != "hf"]
    for word in (text or "").split(",") if text else []:
        scheme, colon, name = word.strip().partition(":")
        if colon and scheme not in EXAMPLES:
            raise UsageError(
                f"SECRET={text!r}: {scheme!r} is not one of {', '.join(EXAMPLES)}; several secrets "
                "are written SECRET=s3:one,hf:other"
            )
        found |= {scheme: name} if colon else dict.fromkeys(others or ["hf"], scheme)
    return found

"""The sample request on Baseten's page of the model.

Promises: the deployment accepts it: the card's request, with a small image embedded if the
deployment may not fetch the card's own.
"""

import copy
from typing import Any
from urllib.parse import urlsplit

from deploy.cards import Card
from deploy.options import Options

# 64 x 64 pixels in one red
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUElEQVR42u3PQREAAAQAMATRv5Y"
    "mUni42xospzs+q3hOQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBA4N4C+dgBnVOPoBsAAAAASU"
    "VORK5CYII="
)


def example_input(card: Card, options: Options) -> dict[str, Any]:
    found = copy.deepcopy(card.example_input)
    if options.image_hosts is None:
        return found
    for message in found["messages"]:
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            image = part.get("image_url")
            if image and not allowed(image["url"], options.hosts):
                image["url"] = IMAGE
    return found


def allowed(url: str, hosts: list[str]) -> bool:
    """Whether images may come from there, by the rules of packages/predict/images/urls.py."""
    name = (urlsplit(url).hostname or "").lower()
    return any(name == host or (host.startswith(".") and name.endswith(host)) for host in hosts)

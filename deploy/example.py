"""The request that Baseten's page of the model offers to send.

Promises: one that the deployment takes: the card's, with a small image inside the request where the
card's own may not be fetched.
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
    """Whether images may come from there, as packages/predict/images/urls.py will say."""
    name = (urlsplit(url).hostname or "").lower()
    return any(name == host or (host.startswith(".") and name.endswith(host)) for host in hosts)

"""Fetching an image as vLLM's connector does, with a fake of DNS."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from predict.images.batch import ImageBatch
from predict.images.fetch import ImageLimits, fetch
from predict.images.urls import FetchPolicy
from predict.memory import RequestMemory

LIMITS = ImageLimits(size=1 << 20, seconds=30)

BRIEF = ImageLimits(size=1 << 20, seconds=0.5)


def batch() -> ImageBatch:
    return ImageBatch(RequestMemory(None))


def answers(*addresses: str) -> Callable[..., Any]:
    """A look-up that returns these addresses for any name."""

    def lookup(host: str, port: int, family: int, kind: int) -> list[Any]:
        return [
            (socket.AF_INET6, kind, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, kind, 6, "", (address, port))
            for address in addresses
        ]

    return lookup


def get(url: str, policy: FetchPolicy, limits: ImageLimits = LIMITS, **more: Any) -> bytes:
    return asyncio.run(fetch(url, policy, limits, batch(), **more))

"""Images as mistral-common sees them: only their sizes, from which it counts their tokens.

vLLM also gives the messages to mistral-common, which would fetch each image again (with `requests`,
redirects and `file://`), decode and scale it: 0.3 s of CPU for 4096 x 4096 pixels, in the one
thread that makes the prompts of all requests, text too.

Promises: the same tokens as for an image of that size, without any pixels. Refuses to make an image
from any other URL.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from predict.images.urls import ImageError

SCHEME = "size:"
NO_PIXELS = numpy.empty((3, 0, 0), numpy.float32)


@dataclass(frozen=True)
class Size:
    """What an image's tokens depend on."""

    size: tuple[int, int]  # width, height


class Blank:
    """Replaces Pillow's `Image` where vLLM makes a blank image to count the tokens of its size: 64
    MB and 20 ms for 4096 x 4096 pixels, for each image that comes."""

    @staticmethod
    def new(_: str, size: tuple[int, int]) -> Size:
        return Size(size)


def url_of(width: int, height: int) -> str:
    return f"{SCHEME}{width}x{height}"


def size_of(url: str) -> Size:
    if not url.startswith(SCHEME):
        raise ImageError("an image of the request was not fetched before the prompt was made")
    width, height = url.removeprefix(SCHEME).split("x")
    return Size((int(width), int(height)))


def from_chunk(chunk: Any) -> Any:
    """mistral-common's `image_from_chunk`: the image of a chunk that has one, as vLLM's own image
    processor asks for it; otherwise its size."""
    return chunk.image if hasattr(chunk, "image") else size_of(chunk.get_url())


def only_images(transform: Callable[..., Any]) -> Callable[..., Any]:
    """mistral-common's `transform_image`, only for what has pixels."""

    @functools.wraps(transform)
    def transform_image(image: Any, *arguments: Any, **more: Any) -> Any:
        return NO_PIXELS if isinstance(image, Size) else transform(image, *arguments, **more)

    return transform_image

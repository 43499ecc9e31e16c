"""Images as mistral-common is shown them: their sizes, from which it counts their tokens.

vLLM gives the messages to mistral-common as well, which would fetch each image again (by
`requests`, with redirects and `file://`), decode and scale it: 0.3 s of CPU for 4096 x 4096 pixels,
in the one thread that makes the prompts of all requests, text too.

Promises: the same tokens as of an image of that size, of which no pixel exists. Refuses to make an
image of any other URL.
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
    """As much of an image as its tokens depend on."""

    size: tuple[int, int]  # width, height


class Blank:
    """In the place of Pillow's `Image`, where vLLM makes a blank image to count the tokens of its
    size: 64 MB and 20 ms for 4096 x 4096 pixels, of each image that comes."""

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
    """mistral-common's `image_from_chunk`: of a chunk with an image that one, as vLLM's own
    processor of images asks for it."""
    return chunk.image if hasattr(chunk, "image") else size_of(chunk.get_url())


def only_images(transform: Callable[..., Any]) -> Callable[..., Any]:
    """mistral-common's `transform_image`, for what has pixels."""

    @functools.wraps(transform)
    def transform_image(image: Any, *arguments: Any, **more: Any) -> Any:
        return NO_PIXELS if isinstance(image, Size) else transform(image, *arguments, **more)

    return transform_image

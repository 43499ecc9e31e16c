"""vLLM's media connector `predict`: a plugin (`vllm.general_plugins`) that VLLM_MEDIA_CONNECTOR
selects.

Promises: an image that passes the checks of URL, size and header is loaded as by vLLM's own
connector, within the limits of vLLM's own variables; nothing else fetches or opens what a request
names. Refuses with a 400 whatever is the client's fault, and everything that is not an image; with
a 503 an image for which there is no memory (predict/memory.py).

A connector alone cannot promise this: vLLM also gives the messages to mistral-common, which fetches
and decodes each image again to count its tokens. So mistral-common gets the messages with sizes in
place of the images (sizes.py).
"""

import asyncio
import functools
import inspect
import math
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from mistral_common.tokens.tokenizers import image as tokenizer_images
from vllm import envs
from vllm.exceptions import GracefulHTTPError, VLLMValidationError
from vllm.multimodal import parse
from vllm.multimodal.image import ALLOWED_IMAGE_FORMATS
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, ImageMediaIO, MediaConnector
from vllm.multimodal.media import image as media_image
from vllm.multimodal.media.connector import global_thread_pool
from vllm.renderers import chat_utils, mistral

from predict.images import fetch, formats, sizes, urls
from predict.images.batch import ImageBatch, begin_batch, current_batch
from predict.images.fetch import ImageLimits
from predict.images.memory import ImageCost
from predict.images.urls import ImageError
from predict.memory import BusyError, RequestMemory

NAME = "predict"
IMAGE_KINDS = ("image_url", "input_image")
LIMITS = ("VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "VLLM_IMAGE_FETCH_TIMEOUT")

Parse = Callable[..., Awaitable[Any]]


class RefusedImageError(VLLMValidationError):  # type: ignore[misc]  # vLLM's classes are Any here
    """Becomes a 400. Its text is the message alone: vLLM's classes add the parameter's value."""

    def __str__(self) -> str:
        return str(self.args[0])


class ImagesBusyError(GracefulHTTPError):  # type: ignore[misc]
    """Becomes a 503."""


@dataclass(frozen=True)
class EncoderInput:
    """What the model's vision encoder gets of an image."""

    side: int  # pixels; longer sides are scaled down to it
    patch: int  # pixels; both sides are rounded up to a multiple of it
    bytes_per_pixel: int

    def size(self, width: int, height: int) -> int:
        """Bytes for an image of this size."""
        scale = min(1.0, self.side / max(width, height))
        columns, rows = (math.ceil(side * scale / self.patch) + 1 for side in (width, height))
        return columns * rows * self.patch**2 * self.bytes_per_pixel


class SafeMediaConnector(MediaConnector):  # type: ignore[misc]
    policy: urls.FetchPolicy
    formats: tuple[str, ...]
    encoder: EncoderInput | None = None

    async def load_from_url_async(
        self, url: str, media_io: Any, *, fetch_timeout: float | None = None
    ) -> Any:
        batch = current_batch() or ImageBatch(RequestMemory(None))
        with batch.image() as number:
            await asyncio.sleep(0)  # all images of the request are counted before one is done
            try:
                return await self._load(url, media_io, fetch_timeout, batch)
            except ImageError as error:
                raise RefusedImageError(
                    f"image {number} of the request: {error}", parameter="image_url"
                ) from None
            except BusyError as error:
                raise ImagesBusyError(str(error), HTTPStatus.SERVICE_UNAVAILABLE) from None

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        loading = self.load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)
        with ThreadPoolExecutor(1) as thread:  # apart from the caller's event loop
            return thread.submit(asyncio.run, loading).result()

    async def _load(self, url: str, media_io: Any, seconds: float | None, batch: ImageBatch) -> Any:
        if not isinstance(media_io, ImageMediaIO):
            raise ImageError("it is not an image, which is all that this model takes")
        limits = ImageLimits(
            size=envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB * fetch.MEGABYTE,
            seconds=seconds or envs.VLLM_IMAGE_FETCH_TIMEOUT,
            redirects=fetch.REDIRECTS if envs.VLLM_MEDIA_URL_ALLOW_REDIRECTS else 0,
        )
        fetched = None
        if url[:5].lower() != "data:":
            fetched = await batch.once(url, lambda: fetch.fetch(url, self.policy, limits, batch))

        def check() -> tuple[bytes, tuple[int, int]]:
            data = formats.decode_data_url(url, limits) if fetched is None else fetched
            return data, formats.check(data, envs.VLLM_MAX_IMAGE_PIXELS, self.formats)

        loop = asyncio.get_running_loop()
        data, (width, height) = await loop.run_in_executor(global_thread_pool, check)

        def decode() -> Any:
            try:
                return media_io.load_bytes(data)
            except MemoryError:
                raise
            except Exception:  # see formats.check
                raise formats.unreadable(self.formats) from None

        kept = self.encoder.size(width, height) if self.encoder else 0
        downloaded = 0 if fetched is None else len(data)
        async with batch.share(ImageCost(downloaded, width * height, kept)) as share:
            image = await share.run(global_thread_pool, decode)
        batch.sizes[url] = image.media.size
        return image


def for_tokenizer(part: Any, known: Mapping[str, tuple[int, int]]) -> Any:
    """A content part as mistral-common may see it: read as vLLM reads it, with a size for its
    image."""
    if not isinstance(part, dict):
        return part
    kind, content = chat_utils._parse_chat_message_content_mm_part(part)
    if kind in IMAGE_KINDS:
        if content not in known:
            raise RefusedImageError("an image of the request is empty", parameter="image_url")
        return {"type": "image_url", "image_url": {"url": sizes.url_of(*known[content])}}
    if kind != part.get("type"):  # mistral-common could take it for an image or a file
        raise RefusedImageError(
            f"a part of the request's content is read as {kind!r}, which its 'type' must say",
            parameter="messages",
        )
    return part


def with_sizes(parse: Parse) -> Parse:
    """Wraps vLLM's message parser, so that the messages then have sizes in place of images."""

    @functools.wraps(parse)
    async def parse_and_size(messages: Any, model: Any, *arguments: Any, **more: Any) -> Any:
        batch = current_batch() or begin_batch(RequestMemory(None))
        if SafeMediaConnector.encoder is None:
            if (encoder := encoder_input(model)) is not None:
                count_by_size()
            SafeMediaConnector.encoder = encoder
        parsed = await parse(messages, model, *arguments, **more)
        batch.body.settle()
        for message in messages:
            if isinstance(content := message.get("content"), list):
                message["content"] = [for_tokenizer(part, batch.sizes) for part in content]
        batch.sizes.clear()  # its URLs may be 40 MB
        return parsed

    return parse_and_size


def with_weak_tracker(create: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the tracker's `create_parser`, so that the parser does not keep the tracker. vLLM's
    tracker of a request holds the loaders of its images, with their URLs; they hold the parser,
    which held the tracker. Data URLs of 40 MB stayed until Python's collector ran, which is rare
    while most objects are set aside."""

    @functools.wraps(create)
    def create_parser(self: Any, *arguments: Any, **more: Any) -> Any:
        return create(weakref.proxy(self), *arguments, **more)

    return create_parser


def encoder_input(model: Any) -> EncoderInput | None:
    """From vLLM's `ModelConfig`; None for a text model."""
    vision = getattr(model.hf_config, "vision_config", None)
    if vision is None:
        return None
    return EncoderInput(vision.image_size, vision.patch_size, 3 * model.dtype.itemsize)


def count_by_size() -> None:
    """Counts tokens by size. Called with the first request to a model that takes images: other
    models need not import this."""
    from vllm.transformers_utils.processors import pixtral

    replace(pixtral, "Image", sizes.Blank)


def replace(owner: Any, name: str, new: Any) -> None:
    """Replaces a name of a module or a class; `ValueError` if it does not exist: a patch that no
    longer applies must not pass unnoticed."""
    if not hasattr(owner, name):
        raise ValueError(
            f"{owner.__name__}.{name}, which predict.images.connector replaces, does not exist"
        )
    setattr(owner, name, new)


def register() -> None:
    """The plugin's entry point, which vLLM calls in each of its processes; a `ValueError` stops the
    start."""
    if envs.VLLM_MEDIA_CONNECTOR != NAME:
        return
    for limit in LIMITS:
        if getattr(envs, limit) <= 0:
            raise ValueError(f"{limit} is {getattr(envs, limit)}, must be above 0")
    SafeMediaConnector.policy = urls.read_policy(os.environ)
    SafeMediaConnector.formats = formats.read_formats(os.environ)
    if others := set(SafeMediaConnector.formats) - set(ALLOWED_IMAGE_FORMATS):
        raise ValueError(f"ALLOWED_IMAGE_FORMATS has {others}, which vLLM does not open")
    MEDIA_CONNECTOR_REGISTRY.register(NAME)(SafeMediaConnector)
    # vLLM's own function tries more formats in another order: it could decode another image than
    # was checked
    opened = functools.partial(formats.open_to_decode, formats=SafeMediaConnector.formats)
    replace(media_image, "open_image", opened)
    # An image gets its orientation when it is loaded; vLLM would do it again here, on a copy.
    replace(parse, "normalize_image", lambda image: image)
    replace(tokenizer_images, "image_from_chunk", sizes.from_chunk)
    transform = inspect.unwrap(tokenizer_images.transform_image)  # register() may be called again
    replace(tokenizer_images, "transform_image", sizes.only_images(transform))
    parse_chat = inspect.unwrap(mistral.parse_chat_messages_async)
    replace(mistral, "parse_chat_messages_async", with_sizes(parse_chat))
    tracker = chat_utils.AsyncMultiModalItemTracker
    create = inspect.unwrap(tracker.create_parser)
    replace(tracker, "create_parser", with_weak_tracker(create))

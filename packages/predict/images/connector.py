"""A plugin of vLLM (`vllm.general_plugins`) that adds the media connector `predict`, which
`VLLM_MEDIA_CONNECTOR` chooses.

Promises: an image goes through it as through vLLM's own connector, once its address, its size and
its header have passed; the limits are those of vLLM's own variables; nothing else fetches or opens
what a request names. Refuses with a 400 what is the client's fault, whatever vLLM's connector calls
it, and everything that is no image.

The last needs more than a connector. vLLM gives the messages to mistral-common as they came, to
make the prompt of, and there each image is fetched and decoded a second time, by `requests`, with
redirects and `file://`, to see how many tokens it has. So the messages it is given here have blank
images of the same sizes.
"""

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mistral_common.tokens.tokenizers import image as tokenizer_images
from vllm import envs
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.image import ALLOWED_IMAGE_FORMATS
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, ImageMediaIO, MediaConnector
from vllm.multimodal.media import image as media_image
from vllm.multimodal.media.connector import global_thread_pool
from vllm.renderers import chat_utils, mistral

from predict.images import fetch, formats, urls
from predict.images.fetch import Limits
from predict.images.urls import ImageError

NAME = "predict"
IMAGE_KINDS = ("image_url", "input_image")
LIMITS = ("VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "VLLM_IMAGE_FETCH_TIMEOUT")

Parse = Callable[..., Awaitable[Any]]


class RefusedImageError(VLLMValidationError):  # type: ignore[misc]  # vLLM's classes are Any here
    """vLLM makes it a 400. The message alone: vLLM's own classes add the parameter's value."""

    def __str__(self) -> str:
        return str(self.args[0])


class Guarded(MediaConnector):  # type: ignore[misc]
    rules: urls.Rules
    formats: tuple[str, ...]

    async def load_from_url_async(
        self, url: str, media_io: Any, *, fetch_timeout: float | None = None
    ) -> Any:
        request = fetch.current_request() or fetch.Request()
        with request.image() as number:
            await asyncio.sleep(0)  # all images of the request are counted before the first is done
            try:
                return await self._load(url, media_io, fetch_timeout, request)
            except ImageError as error:
                raise RefusedImageError(
                    f"image {number} of the request: {error}", parameter="image_url"
                ) from None

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        loading = self.load_from_url_async(url, media_io, fetch_timeout=fetch_timeout)
        with ThreadPoolExecutor(1) as thread:  # whose event loop is not the caller's
            return thread.submit(asyncio.run, loading).result()

    async def _load(
        self, url: str, media_io: Any, seconds: float | None, request: fetch.Request
    ) -> Any:
        if not isinstance(media_io, ImageMediaIO):
            raise ImageError("it is of a kind this model does not take")
        limits = Limits(
            size=envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB * fetch.MEGABYTE,
            seconds=seconds or envs.VLLM_IMAGE_FETCH_TIMEOUT,
            redirects=fetch.REDIRECTS if envs.VLLM_MEDIA_URL_ALLOW_REDIRECTS else 0,
        )
        fetched = None
        if url[:5].lower() != "data:":
            fetched = await request.once(url, lambda: fetch.fetch(url, self.rules, limits, request))

        def decode() -> Any:
            data = formats.of_data_url(url, limits) if fetched is None else fetched
            formats.check(data, envs.VLLM_MAX_IMAGE_PIXELS, self.formats)
            try:
                return media_io.load_bytes(data)
            except MemoryError:
                raise
            except Exception:  # see formats.check
                raise formats.unreadable(self.formats) from None

        async with request.decoding:  # one at a time: decoded, an image takes most of its memory
            image = await asyncio.get_running_loop().run_in_executor(global_thread_pool, decode)
        request.sizes[url] = image.media.size
        return image


def for_tokenizer(part: Any, sizes: Mapping[str, tuple[int, int]]) -> Any:
    """A content part as mistral-common may see it: read by vLLM's rules, its image blank."""
    if not isinstance(part, dict):
        return part
    kind, content = chat_utils._parse_chat_message_content_mm_part(part)
    if kind in IMAGE_KINDS:
        if content not in sizes:
            raise RefusedImageError("an image of the request is empty", parameter="image_url")
        return {"type": "image_url", "image_url": {"url": formats.blank(*sizes[content])}}
    if kind != part.get("type"):  # to others, it may be an image or a file
        raise RefusedImageError(
            f"a part of the request's content is read as {kind!r}, which its 'type' must say",
            parameter="messages",
        )
    return part


def with_blank_images(parse: Parse) -> Parse:
    """vLLM's reader of messages, after which their images are blank."""

    @functools.wraps(parse)
    async def parse_and_blank(messages: Any, *arguments: Any, **more: Any) -> Any:
        request = fetch.current_request() or fetch.begin_request()
        parsed = await parse(messages, *arguments, **more)
        for message in messages:
            if isinstance(content := message.get("content"), list):
                message["content"] = [for_tokenizer(part, request.sizes) for part in content]
        return parsed

    return parse_and_blank


def refuse_download(url: str, timeout: Any = None) -> Any:
    raise ImageError("an image of the request was not fetched before the prompt was made")


def replace(module: Any, name: str, new: Any) -> None:
    """Sets a name that must be there, or else what it guards against would come back unseen."""
    if not hasattr(module, name):
        raise ValueError(
            f"{module.__name__} has no {name} any more; predict.images.connector relies on it"
        )
    setattr(module, name, new)


def register() -> None:
    """What vLLM calls in each of its processes; a `ValueError` stops it from starting."""
    if envs.VLLM_MEDIA_CONNECTOR != NAME:
        return
    for limit in LIMITS:
        if getattr(envs, limit) <= 0:
            raise ValueError(f"{limit} is {getattr(envs, limit)}, must be above 0")
    Guarded.rules = urls.read(os.environ)
    Guarded.formats = formats.read_formats(os.environ)
    if others := set(Guarded.formats) - set(ALLOWED_IMAGE_FORMATS):
        raise ValueError(f"ALLOWED_IMAGE_FORMATS has {others}, which vLLM does not open")
    MEDIA_CONNECTOR_REGISTRY.register(NAME)(Guarded)
    # vLLM's own tries its formats in another order, and could see another image in the same bytes
    opened = functools.partial(formats.open_image, formats=Guarded.formats)
    replace(media_image, "open_image", opened)
    replace(tokenizer_images, "download_image", refuse_download)
    parse = inspect.unwrap(mistral.parse_chat_messages_async)  # this may be called again
    replace(mistral, "parse_chat_messages_async", with_blank_images(parse))

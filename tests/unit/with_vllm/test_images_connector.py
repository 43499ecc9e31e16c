"""The media connector, as vLLM itself finds and loads it."""

import asyncio
import base64
import functools
import gc
import io
import json
import struct
import tracemalloc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from predict.images.batch import image_batch
from predict.images.memory import ImageCost, Share
from predict.images.urls import ImageError
from predict.memory import KEPT_COPIES, RequestMemory

from tests.support.image_host import blank, picture, serving
from tests.support.loops import run


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Any:
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY
    from vllm.plugins import load_plugins_by_group

    monkeypatch.setenv("VLLM_MEDIA_CONNECTOR", "predict")
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "1000000")
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    load_plugins_by_group("vllm.general_plugins")["predict"]()
    return MEDIA_CONNECTOR_REGISTRY.load("predict", media_io_kwargs={"image": {}})


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def both_ways(connector: Any, url: str, kind: str = "image") -> list[Any]:
    """What it makes of the URL, or raises, when asked the one way and the other."""
    found: list[Any] = []
    ways: list[Callable[[], Any]] = [
        lambda: asyncio.run(getattr(connector, f"fetch_{kind}_async")(url)),
        lambda: getattr(connector, f"fetch_{kind}")(url),
    ]
    for fetch in ways:
        try:
            found.append(fetch())
        except Exception as error:
            found.append(error)
    return found


def test_an_image_is_loaded_as_vllm_s_own_connector_does(connector: Any) -> None:
    from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY

    expected = MEDIA_CONNECTOR_REGISTRY.load("http").fetch_image(data_url(picture()))
    for image in both_ways(connector, data_url(picture())):
        assert image.original_bytes == expected.original_bytes
        assert image.media == expected.media


def test_an_image_is_decoded_as_the_format_it_was_looked_at_as(connector: Any) -> None:
    """A JPEG that vLLM's own list of formats, in its order, would take for an animation (FLI)."""
    jpeg = picture("JPEG")
    segment = bytearray(0x11AF)  # the length of the JPEG's first segment, and to others FLI's mark
    segment[:8] = struct.pack("<HHHH", 0xAF11, 1, 640, 480)
    both = jpeg[:2] + b"\xff\xe0" + bytes(segment) + jpeg[2:]
    assert Image.open(io.BytesIO(both), formats=["FLI"]).size == (640, 480)
    for image in both_ways(connector, data_url(both)):
        assert image.media.size == (64, 64)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1/", "127.0.0.1 has no public address that may be fetched from"),
        ("file:///etc/passwd", "its address must begin with https://, http:// or data:image/"),
        ("data:image/png;base64,!", "it is a data URL whose base64 is malformed"),
        (data_url(picture()[:100]), "it is not an image that can be read; formats: PNG, JPEG"),
        (data_url(blank("PNG", (1001, 1000))), "it has more than 1000000 pixels"),
        (data_url(bytes(1 << 21)), "it has more than 1 MB"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_refused_becomes_a_400(connector: Any, url: str, message: str) -> None:
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    for error in both_ways(connector, url):
        answer = create_error_response(error).error
        assert (answer.code, answer.type, answer.param) == (400, "BadRequestError", "image_url")
        assert answer.message.startswith(f"image 1 of the request: {message}")


def test_images_that_get_no_memory_become_a_503(connector: Any) -> None:
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    async def load() -> Any:
        memory = RequestMemory(1 << 20)
        await Share.take(
            memory, [ImageCost(downloaded=0, pixels=1 << 20, kept=0)]
        )  # of another request
        with image_batch(memory):
            return await connector.fetch_image_async(data_url(picture()))

    with pytest.MonkeyPatch.context() as soon:
        soon.setattr("predict.memory.WAIT_SECONDS", 0.01)
        with pytest.raises(Exception, match="take all memory") as refused:
            asyncio.run(load())
    assert create_error_response(refused.value).error.code == 503


def test_an_image_s_share_of_memory_ends_with_it(connector: Any) -> None:
    async def load() -> None:
        memory = RequestMemory(1 << 30)
        with image_batch(memory):
            image = await connector.fetch_image_async(data_url(picture()))
            assert memory.taken > 0
            del image
            while memory.taken:  # the thread that decoded it may have it for another moment
                gc.collect()
                await asyncio.sleep(0.01)

    run(load)


def test_behind_an_image_that_cannot_be_decoded_no_other_is(connector: Any) -> None:
    decoded: list[Any] = []

    async def counted(share: Share, *arguments: Any) -> Any:
        decoded.append(share)
        return await run_on(share, *arguments)

    async def load() -> list[Any]:
        urls = [data_url(picture(size=(640, 480), colour=(red, 0, 0))[:-100]) for red in range(4)]
        with image_batch(RequestMemory(1 << 30)):
            every = [connector.fetch_image_async(url) for url in urls]
            return await asyncio.gather(*every, return_exceptions=True)

    run_on = Share.run
    with pytest.MonkeyPatch.context() as counting:
        counting.setattr(Share, "run", counted)
        outcomes = asyncio.run(load())
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert len(decoded) == 1


def test_a_request_s_images_are_freed_without_the_garbage_collector(connector: Any) -> None:
    """vLLM's tracker of a request refers to its images' URLs, 40 MB of them."""
    from vllm.renderers import chat_utils

    tracker = chat_utils.AsyncMultiModalItemTracker(SimpleNamespace(multimodal_config=None))
    tracker.model_config.allowed_local_media_path = ""
    tracker.model_config.allowed_media_domains = None
    parser = tracker.create_parser()
    load = functools.partial(parser._image_with_uuid_async, data_url(picture()), None)
    tracker._items_by_modality["image"].append(load)
    assert asyncio.run(load())[0].media.size == (64, 64)
    seen = weakref.ref(tracker)
    gc.disable()
    try:
        del tracker, parser, load
        assert seen() is None
    finally:
        gc.enable()


def test_a_decoded_image_is_processed_and_not_a_copy_of_it(connector: Any) -> None:
    """Or images would take twice what is counted."""
    from vllm.multimodal.parse import MultiModalDataParser

    image = Image.new("RGB", (9, 9))
    (processed,) = MultiModalDataParser().parse_mm_data({"image": [image]})["image"]
    assert processed is image


def test_what_the_encoder_is_given_of_an_image_is_counted(connector: Any) -> None:
    """At least as much as mistral-common makes of it."""
    from mistral_common.protocol.instruct.chunk import ImageChunk
    from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
    from predict.images.connector import EncoderInput

    encoder = ImageEncoder(ImageConfig(16, 1024), SpecialImageIDs(1, 2, 3))
    counted = EncoderInput(side=1024, patch=16, bytes_per_pixel=12)
    for size in ((1, 1), (16, 16), (17, 40), (1024, 1024), (1025, 700), (3000, 4000), (1, 4000)):
        made = encoder(ImageChunk(image=Image.new("RGB", size))).image.nbytes
        assert made <= counted.size(*size) <= 2.1 * made + 20_000


def test_what_is_not_an_image_is_refused(connector: Any) -> None:
    for error in both_ways(connector, "data:audio/wav;base64,AAAA", "audio"):
        assert "not an image, which is all" in str(error)


def test_the_tokenizer_is_given_the_sizes_of_images(connector: Any) -> None:
    from predict.images import connector

    sizes = {"https://a.example/b.png": (30, 20), "data:c": (5, 6)}
    parts = [
        "text",
        {"type": "text", "text": "https://a.example/b.png"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "auto"}},
        {"type": "input_image", "image_url": "data:c", "detail": "auto"},
        {"image_url": "data:c", "url": "http://127.0.0.1/"},
        {"type": "image", "uuid": "1", "image_url": "data:c", "path": "/etc/passwd"},
    ]
    seen = [connector.for_tokenizer(part, sizes) for part in parts]
    assert seen[:2] == parts[:2]
    assert [set(part) for part in seen[2:]] == [{"type", "image_url"}] * 4
    urls = [part["image_url"]["url"] for part in seen[2:]]
    assert urls == ["size:30x20", *["size:5x6"] * 3]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}},
        {"type": "image", "uuid": "1", "tool_reference": {}, "url": "http://127.0.0.1/"},
        {"type": "audio", "uuid": "1", "tool_reference": {}, "path": "/etc/passwd"},
    ],
    ids=str,
)
def test_the_tokenizer_is_given_nothing_it_would_fetch(connector: Any, part: Any) -> None:
    from predict.images import connector

    with pytest.raises(connector.RefusedImageError):
        connector.for_tokenizer(part, {})


def test_urls_are_forgotten_once_the_messages_have_sizes(connector: Any) -> None:
    from predict.images.connector import with_sizes

    url = data_url(picture())
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    async def parse(messages: Any, model: Any) -> str:
        await connector.fetch_image_async(url)
        return "parsed"

    with image_batch(RequestMemory(None)) as batch:
        model = SimpleNamespace(hf_config=None)
        parsing: Any = with_sizes(parse)(messages, model)
        assert asyncio.run(parsing) == "parsed"
        assert not batch.sizes
    assert url not in str(messages)
    assert "size:64x64" in str(messages)


def test_what_is_kept_of_a_body_until_it_is_answered_is_counted() -> None:
    """The body and the JSON of it, which FastAPI keeps, though the messages have sizes by then."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    part = {"type": "image_url", "image_url": {"url": "data:," + "A" * (4 << 20)}}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
    kept: list[int] = []
    app = FastAPI()

    async def chat(request: Any) -> None:
        messages: Any = request.messages
        messages[0]["content"] = "size"
        gc.collect()
        kept.append(tracemalloc.get_traced_memory()[0])

    chat.__annotations__["request"] = ChatCompletionRequest
    app.post("/")(chat)

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(bytearray(body)), "more_body": False}

    async def send(_: Any) -> None: ...

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    tracemalloc.start()
    try:
        asyncio.run(app(scope, receive, send))
    finally:
        tracemalloc.stop()
    assert round(kept[0] / len(body)) == KEPT_COPIES


@pytest.mark.parametrize(
    "size", [(1, 1), (16, 17), (1024, 1024), (1025, 700), (3000, 4000), (4096, 4096), (1, 4000)]
)
def test_a_size_has_the_tokens_of_an_image(connector: Any, size: tuple[int, int]) -> None:
    from mistral_common.protocol.instruct.chunk import ImageChunk, ImageURLChunk
    from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
    from predict.images.sizes import url_of

    encoder = ImageEncoder(ImageConfig(16, 1024), SpecialImageIDs(1, 2, 3))
    shown = encoder(ImageURLChunk(image_url=url_of(*size)))
    image = encoder(ImageChunk(image=Image.new("RGB", size)))
    assert shown.tokens == image.tokens
    assert not shown.image.size
    assert image.image.size


def test_vllm_counts_the_tokens_of_a_size_without_an_image(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
    from predict.images.connector import count_by_size
    from vllm.transformers_utils.processors import pixtral

    monkeypatch.setattr(pixtral, "Image", pixtral.Image)  # as it was, afterwards
    encoder = ImageEncoder(ImageConfig(16, 1024), SpecialImageIDs(1, 2, 3))
    count = pixtral.MistralCommonImageProcessor(encoder).get_number_of_image_patches
    before = count(700, 1025)
    count_by_size()
    monkeypatch.setattr(Image, "new", None)
    assert count(700, 1025) == before


def test_the_tokenizer_fetches_nothing_by_itself(connector: Any) -> None:
    from mistral_common.protocol.instruct.chunk import ImageURLChunk
    from mistral_common.tokens.tokenizers import image

    with serving() as host:
        for url in (host.url("/red.png"), "file:///etc/passwd", data_url(picture())):
            with pytest.raises(ImageError):
                image.image_from_chunk(ImageURLChunk(image_url=url))
        assert host.asked == []


def test_what_it_relies_on_must_be_there(connector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mistral_common.tokens.tokenizers import image
    from predict.images import connector
    from vllm.renderers import mistral

    for module, name in (
        (image, "image_from_chunk"),
        (image, "transform_image"),
        (mistral, "parse_chat_messages_async"),
    ):
        with monkeypatch.context() as other:
            other.delattr(module, name)
            with pytest.raises((ValueError, AttributeError), match=name):
                connector.register()


def test_an_error_of_the_server_stays_one(connector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.multimodal.media import ImageMediaIO

    def no_memory(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageMediaIO, "load_bytes", no_memory)
    for error in both_ways(connector, data_url(picture())):
        assert isinstance(error, MemoryError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_MAX_IMAGE_PIXELS", "0"),
        ("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "-1"),
        ("VLLM_IMAGE_FETCH_TIMEOUT", "0"),
        ("ALLOWED_IMAGE_PORTS", "http"),
        ("ALLOWED_IMAGE_FORMATS", "WORD"),
        ("ALLOWED_IMAGE_FORMATS", "EPS"),
    ],
)
def test_a_limit_that_is_none_stops_the_start(
    connector: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from predict.images import connector

    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        connector.register()

"""Checks an image's bytes before anything is decoded.

Promises: reads only the header, at a cost that grows neither with the decoded size nor with the
number of chunks, nor with the metadata in them (metadata.py); an animation counts as its first
frame, the only one that is decoded; the decoder reads the bytes as the format that was checked.
Refuses, with an `ImageError` that quotes nothing of the content, other formats, too many pixels,
and the two forms that take minutes to decode.
"""

import io
from collections.abc import Mapping

import pybase64
from PIL import Image

from predict.images import metadata
from predict.images.fetch import ImageLimits, too_large
from predict.images.urls import ImageError

# The formats of OpenAI's API, and BMP. Others can contain further images (ICO, ICNS, PSD …) or
# tiles far larger than the image (TIFF: 1 GB from one megabyte), which the size in the header does
# not show.
DEFAULT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

# How often Pillow may read from an image: its parsers walk the chunks of a PNG, JPEG or GIF in
# Python, about 5 µs each. The header of a 20 MB photograph with all its profiles takes a thousand
# reads; a whole 20 MB PNG in chunks of 8 KiB takes eight thousand.
MAX_HEADER_READS, MAX_READS = 5_000, 20_000

# Each scan of a progressive JPEG covers all pixels and may take a few dozen bytes; encoders write
# about ten.
MAX_SCANS = 100
# Pillow keeps 8 bytes for each row: rows of two pixels would take twice what memory.py counts. No
# JPEG or WebP has a longer side.
MAX_SIDE = 65_535
MAX_MEDIA_TYPE = 1000  # characters before the comma of a data URL
# Forms of base64 that are unambiguous, but that vLLM's own decoder refuses
ESCAPES = {
    b"%2B": b"+",
    b"%2b": b"+",
    b"%2F": b"/",
    b"%2f": b"/",
    b"%3D": b"=",
    b"%3d": b"=",
    b"%0A": b"",
    b"%0a": b"",
    b"%0D": b"",
    b"%0d": b"",
}
URL_SAFE = bytes.maketrans(b"-_", b"+/")
JPEG_START, SCAN_START = b"\xff\xd8\xff", b"\xff\xda"
BMP_RUN_LENGTHS = (1, 2)  # Pillow decodes them in Python, run by run


class _BoundedReader(io.BytesIO):
    def __init__(self, data: bytes, max_reads: int) -> None:
        super().__init__(data)
        self.left = max_reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError("the image has too many chunks")
        return super().read(size)


def open_image(
    stream: io.BytesIO, formats: tuple[str, ...], max_reads: int = MAX_READS
) -> Image.Image:
    """Pillow's image of the stream, in one of `formats`."""
    image = Image.open(_BoundedReader(stream.getvalue(), max_reads), formats=formats)
    metadata.drop_large(image)
    return image


def open_to_decode(stream: io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
    """The same, with 16-bit grey as 8-bit: Pillow's own conversion to RGB would make it white."""
    image = open_image(stream, formats)
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 257).convert("L")
    return image


def read_formats(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Pillow's formats named in `ALLOWED_IMAGE_FORMATS`; a `ValueError` for an unknown one."""
    Image.init()
    text = environment.get("ALLOWED_IMAGE_FORMATS", "")
    formats = tuple(word.strip().upper() for word in text.split(",") if word.strip())
    for name in formats:
        if name not in Image.OPEN:
            raise ValueError(f"ALLOWED_IMAGE_FORMATS has {name!r}, which Pillow does not read")
    return formats or DEFAULT_FORMATS


def decode_data_url(url: str, limits: ImageLimits) -> bytes:
    """The bytes in `data:image/png;base64,…`. The media type may be missing or wrong, since the
    bytes decide; the base64 may have line breaks, the URL-safe alphabet, escapes and no padding."""
    comma = url.find(",", 0, MAX_MEDIA_TYPE)
    if comma < 0 or url[5:comma].lower().split(";")[-1].strip() != "base64":
        raise ImageError("it is a data URL without base64; write it as data:image/png;base64,…")
    if len(url) - comma > 2 * limits.size + 1000:  # base64 adds a third; the rest is white space
        raise too_large(limits)
    try:
        data = _decode_base64(url[comma + 1 :])
    except ValueError:
        raise ImageError("it is a data URL whose base64 is malformed") from None
    if len(data) > limits.size:
        raise too_large(limits)
    return data


def _decode_base64(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        encoded = text.encode("ascii")
    for escape, plain in ESCAPES.items():
        encoded = encoded.replace(escape, plain)
    encoded = encoded.translate(URL_SAFE, b" \t\r\n").rstrip(b"=")
    return pybase64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)


def check(data: bytes, max_pixels: int, formats: tuple[str, ...]) -> tuple[int, int]:
    """Width and height; `ImageError` unless the header is that of an image of at most
    `max_pixels`."""
    if data.startswith(JPEG_START) and data.count(SCAN_START) > MAX_SCANS:
        raise ImageError(f"it is a JPEG of more than {MAX_SCANS} scans")
    try:
        with open_image(io.BytesIO(data), formats, MAX_HEADER_READS) as image:
            width, height = image.size
            slow = image.format == "BMP" and image.info.get("compression") in BMP_RUN_LENGTHS
    except Image.DecompressionBombError:
        raise _too_many(max_pixels) from None
    except Exception:  # Pillow's parsers raise anything: struct.error, SyntaxError …
        raise unreadable(formats) from None
    if width * height > max_pixels:
        raise _too_many(max_pixels)
    if max(width, height) > MAX_SIDE:
        said = f"it has {width} x {height} pixels; a side may have at most {MAX_SIDE}"
        raise ImageError(said)
    if slow:
        raise ImageError("it is a run-length encoded BMP; send it uncompressed, or as PNG")
    return width, height


def unreadable(formats: tuple[str, ...]) -> ImageError:
    return ImageError(f"it is not an image that can be read; formats: {', '.join(formats)}")


def _too_many(max_pixels: int) -> ImageError:
    return ImageError(f"it has more than {max_pixels} pixels, the most an image may have")

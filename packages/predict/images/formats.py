"""What an image's bytes may be, told before anything is decoded.

Promises: looks at the header alone, whose work grows neither with what the image unfolds to nor
with the pieces it comes in; of an animation the first picture counts, which is the only one that is
decoded; what decodes it reads it as the format it was looked at as. Refuses, with an `ImageError`
that repeats nothing of the content, other formats, too many pixels, and the two forms whose
decoding takes minutes.
"""

import base64
import binascii
import functools
import io
from collections.abc import Mapping

from PIL import Image

from predict.images.fetch import Limits, too_large
from predict.images.urls import ImageError

# Those of OpenAI's API, and one more that is plain. Others can hold an image within an image (ICO,
# ICNS, PSD …) or be stored in tiles far larger than themselves (TIFF, 1 GB of one megabyte), which
# their header's size does not tell.
DEFAULT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

# How often Pillow may read of an image, as its readers go through the pieces of a PNG, JPEG or GIF
# in Python, some 5 µs each: before its pixels, where a 20 MB photograph with all its profiles has
# a thousand reads, and in all, where a 20 MB PNG in pieces of 8 KiB has eight thousand.
HEADER_READS, MOST_READS = 5_000, 20_000

# Each scan of a progressive JPEG goes over all its pixels, and may take a few dozen bytes; encoders
# write about ten of them.
MOST_SCANS = 100
LONGEST_TYPE = 1000  # characters before the comma of a data URL
JPEG_START, SCAN_START = b"\xff\xd8\xff", b"\xff\xda"
BMP_RUN_LENGTHS = (1, 2)  # Pillow unfolds them in Python, a run at a time


class _Source(io.BytesIO):
    def __init__(self, data: bytes, most_reads: int) -> None:
        super().__init__(data)
        self.left = most_reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError("the image is in too many pieces")
        return super().read(size)


def open_image(
    stream: io.BytesIO, formats: tuple[str, ...], most_reads: int = MOST_READS
) -> Image.Image:
    """Pillow's image of those bytes, in one of these formats."""
    return Image.open(_Source(stream.getvalue(), most_reads), formats=formats)


def read_formats(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of Pillow's formats in `ALLOWED_IMAGE_FORMATS`; a `ValueError` for one it has not."""
    Image.init()
    text = environment.get("ALLOWED_IMAGE_FORMATS", "")
    formats = tuple(word.strip().upper() for word in text.split(",") if word.strip())
    for name in formats:
        if name not in Image.OPEN:
            raise ValueError(f"ALLOWED_IMAGE_FORMATS has {name!r}, which Pillow does not read")
    return formats or DEFAULT_FORMATS


def of_data_url(url: str, limits: Limits) -> bytes:
    """The bytes in `data:image/png;base64,…`."""
    comma = url.find(",", 0, LONGEST_TYPE)
    media_type, *parameters = url[5:comma].lower().split(";")
    if comma < 0 or parameters[-1:] != ["base64"]:
        raise ImageError("it is a data URL without base64; write it as data:image/png;base64,…")
    if media_type and not media_type.startswith("image/"):
        raise ImageError("it is a data URL of another type than image/…")
    if (len(url) - comma) * 3 // 4 > limits.size + 3:
        raise too_large(limits)
    try:
        return binascii.a2b_base64(url[comma + 1 :], strict_mode=True)
    except ValueError:
        raise ImageError("it is a data URL whose base64 is malformed") from None


def check(data: bytes, most_pixels: int, formats: tuple[str, ...]) -> None:
    """`ImageError` unless the bytes begin as an image of at most so many pixels."""
    if data.startswith(JPEG_START) and data.count(SCAN_START) > MOST_SCANS:
        raise ImageError(f"it is a JPEG of more than {MOST_SCANS} scans")
    try:
        with open_image(io.BytesIO(data), formats, HEADER_READS) as image:
            pixels = image.width * image.height
            slow = image.format == "BMP" and image.info.get("compression") in BMP_RUN_LENGTHS
    except Image.DecompressionBombError:
        raise _too_many(most_pixels) from None
    except Exception:  # Pillow's readers raise what they come across: struct.error, SyntaxError …
        raise unreadable(formats) from None
    if pixels > most_pixels:
        raise _too_many(most_pixels)
    if slow:
        raise ImageError("it is a BMP with run lengths; send it uncompressed, or as PNG")


@functools.lru_cache(maxsize=256)
def blank(width: int, height: int) -> str:
    """An image of that size as a data URL, a few bytes long."""
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def unreadable(formats: tuple[str, ...]) -> ImageError:
    return ImageError(f"it is not an image that can be read; formats: {', '.join(formats)}")


def _too_many(most_pixels: int) -> ImageError:
    return ImageError(f"it has more than {most_pixels} pixels, the most an image may have")

"""What an image's bytes may be, told before anything is decoded.

Promises: looks at the header alone, whose work does not grow with what the image unfolds to; of an
animation the first picture counts, which is the only one that is decoded. Refuses, with an
`ImageError` that repeats nothing of the content, other formats, too many pixels, and the two forms
whose decoding takes minutes.
"""

import base64
import binascii
import functools
import io
from collections.abc import Mapping

from PIL import Image

from predict.addresses import ImageError
from predict.download import Limits, too_large

# Those of OpenAI's API, and two more that are plain. Others (ICO, ICNS, PSD, FITS …) can hold an
# image within an image, whose size the header does not tell.
DEFAULT_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

# Each scan of a progressive JPEG goes over all its pixels, and may take a few dozen bytes; encoders
# write about ten of them.
MOST_SCANS = 100
LONGEST_TYPE = 1000  # characters before the comma of a data URL
JPEG_START, SCAN_START = b"\xff\xd8\xff", b"\xff\xda"
BMP_RUN_LENGTHS = (1, 2)  # Pillow unfolds them in Python, a run at a time


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
        with Image.open(io.BytesIO(data), formats=formats) as image:
            pixels = image.width * image.height
            run_lengths = image.info.get("compression") in BMP_RUN_LENGTHS
            slow = image.format == "BMP" and run_lengths
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

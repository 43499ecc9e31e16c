"""What is in an image beside its pixels: it costs little, and an ordinary image keeps its
orientation."""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from PIL import Image, ImageOps, PngImagePlugin
from predict.images import formats
from predict.images.metadata import MAX_METADATA
from predict.images.urls import ImageError

from tests.support.image_host import chunk, picture

ORIENTATION, RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x0128
SHORT, RATIONAL = 3, 5
TURNED = 6  # by 90°
XMP = '<rdf:Description tiff:Orientation="6"/>'
EXIF = b"Exif\0\0"


def exif(tag: int, count: int, content: bytes) -> bytes:
    """Two entries: that the unit is inches, and one of many numbers."""
    unit = (RESOLUTION_UNIT, SHORT, 1, 2)
    entries = sorted([unit, (tag, RATIONAL, count, 38)])
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, 2) + packed + bytes(4) + content


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes) -> bytes:
    """One without a JFIF header, so that Pillow looks for the resolution elsewhere."""
    start, data = 20, picture("JPEG")
    return data[:2] + b"".join(segments) + data[start:]


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    """With chunks before and after its pixels."""
    data = picture()
    return data[:33] + before + data[33:-12] + after + data[-12:]


def texts(kind: bytes, start: Callable[[int], bytes], text: str, count: int = 64) -> bytes:
    packed = zlib.compress(text.encode(), 9)
    return b"".join(chunk(kind, start(number) + packed) for number in range(count))


LONG_TEXT = "😀" + "a" * ((1 << 20) - 4)
INTERNATIONAL = texts(b"iTXt", lambda number: b"%d\0\1\0\0\0" % number, LONG_TEXT)
MANY_NUMBERS = exif(RESOLUTION, 2_400_000, bytes(8 * 2_400_000))
MANY_ORIENTATIONS = exif(ORIENTATION, 2_400_000, bytes(8 * 2_400_000))


def in_segments(data: bytes, size: int = 65_000) -> list[bytes]:
    pieces = (data[start : start + size] for start in range(0, len(data), size))
    return [segment(0xE1, EXIF + piece) for piece in pieces]


def webp_with(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "WEBP", exif=data)
    return stream.getvalue()


COSTLY = {
    "PNG: compressed texts": lambda: png(INTERNATIONAL),
    "PNG: compressed texts at the end": lambda: png(after=INTERNATIONAL),
    "PNG: texts without a name": lambda: png(texts(b"zTXt", lambda _: b"\0\0", LONG_TEXT, 1000)),
    "PNG: one long text": lambda: png(
        after=chunk(b"iTXt", b"a\0\0\0\0\0" + "😀".encode() + b"a" * (19 << 20))
    ),
    "PNG: profiles": lambda: png(texts(b"iCCP", lambda _: b"a\0\0", "a" * (1 << 20), 1500)),
    "PNG: EXIF": lambda: png(chunk(b"eXIf", MANY_ORIENTATIONS)),
    "WebP: EXIF": lambda: webp_with(MANY_ORIENTATIONS),
    "JPEG: EXIF": lambda: jpeg(*in_segments(MANY_NUMBERS)),
    "JPEG: EXIF in small segments": lambda: jpeg(*in_segments(MANY_NUMBERS, 16_500)),
    "JPEG: Photoshop's resources": lambda: jpeg(
        *[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\0" * 5_400)] * 305
    ),
    "JPEG: quantization tables": lambda: jpeg(*[segment(0xDB, bytes(65 * 1000))] * 305),
}


def decoded(data: bytes) -> Image.Image:
    """As vLLM decodes an image that passed."""
    formats.check(data, 1 << 20, formats.DEFAULT_FORMATS)
    image = formats.open_to_decode(io.BytesIO(data), formats.DEFAULT_FORMATS)
    return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("name", COSTLY)
def test_metadata_cost_little_memory_and_time(name: str) -> None:
    """Beside the image as sent, which the reader, Pillow and WebP's decoder may copy."""
    data = COSTLY[name]()
    began = time.thread_time()
    assert decoded(data).size == (64, 64)
    assert time.thread_time() - began < 1
    tracemalloc.start()
    try:
        image = decoded(data)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.size == (64, 64)
    assert kept < 10 << 20
    assert peak < 3 * len(data) + (16 << 20)


def test_a_jpeg_with_two_frame_headers_is_refused() -> None:
    frame = segment(0xC0, b"\x08\0\x40\0\x40\3" + bytes(3 * 20_000))
    with pytest.raises(ImageError, match="not an image that can be read"):
        decoded(jpeg(frame, frame))


def turned() -> bytes:
    found = Image.Exif()
    found[ORIENTATION] = TURNED
    return found.tobytes()


def saved(kind: str, **more: object) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 32), 64).convert("RGB").save(stream, kind, **more)
    return stream.getvalue()


def png_texts(*texts: tuple[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, text in texts:
        info.add_itxt(name, text, zip=True)
    return info


NOTE, PROFILE = ("Comment", "what it shows" * 1000), bytes(3 << 20)


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", exif=turned() + bytes(65_000), icc_profile=PROFILE, progressive=True),
        saved("JPEG", exif=turned(), icc_profile=PROFILE, comment=b"a" * 60_000),
        saved("JPEG", xmp=XMP.encode()),
        saved("PNG", exif=turned(), icc_profile=PROFILE, pnginfo=png_texts(NOTE)),
        saved("PNG", pnginfo=png_texts(NOTE, ("XML:com.adobe.xmp", XMP), ("b", "b" * 500_000))),
        saved("WEBP", exif=turned(), icc_profile=PROFILE),
        saved("WEBP", xmp=XMP.encode()),
        saved("MPO", exif=turned(), save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    ],
    ids=["progressive", "JPEG", "XMP", "PNG", "texts", "WebP", "WebP XMP", "MPO"],
)
def test_an_ordinary_image_keeps_its_orientation(data: bytes) -> None:
    assert decoded(data).size == (32, 64)


def test_exif_data_in_several_segments_are_those_of_the_first() -> None:
    """Pillow takes more than one for parts of the same data."""
    data = saved("JPEG")
    found = turned().removeprefix(EXIF).ljust(2 * MAX_METADATA, b"\0")
    assert decoded(data[:2] + b"".join(in_segments(found)) + data[2:]).size == (32, 64)

import base64
import contextlib
import io
import struct
import tracemalloc
import zlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from predict.images import formats
from predict.images.fetch import ImageLimits
from predict.images.urls import ImageError

from tests.support.image_host import blank, bomb, picture

LIMITS = ImageLimits(size=1 << 20, seconds=1)
PIXELS = 1 << 20


def check(data: bytes, pixels: int = PIXELS) -> None:
    formats.check(data, pixels, formats.DEFAULT_FORMATS)


@pytest.mark.parametrize("kind", formats.DEFAULT_FORMATS)
def test_an_ordinary_image_passes(kind: str) -> None:
    check(picture(kind))
    check(blank(kind, (1024, 1024)))
    with pytest.raises(ImageError, match="more than 1048576 pixels"):
        check(blank(kind, (1024, 1025)))


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_side_that_is_too_long_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"it has {size[0]} x {size[1]} pixels; a side may have"):
        check(bomb(*size))
    check(bomb(*(min(side, 65_535) for side in size)))


@pytest.mark.parametrize("side", [13_000, 30_000, 60_000])
def test_a_bomb_is_refused_without_being_decoded(side: int) -> None:
    small = bytearray(picture("PNG"))
    small[16:24] = struct.pack(">II", side, side)  # the header's size; its checksum is next
    small[29:33] = struct.pack(">I", zlib.crc32(small[12:29]))
    with pytest.raises(ImageError, match="pixels, the most an image may have"):
        check(bytes(small))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_many_pictures_in_one_are_looked_at_as_one(kind: str) -> None:
    stream = io.BytesIO()
    frames = [Image.new("L", (64, 64), shade) for shade in range(200)]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    check(stream.getvalue())


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "TIFF", "PPM", "PCX", "TGA", "PDF"])
def test_other_formats_are_refused(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, kind)
    with pytest.raises(ImageError, match="formats: PNG, JPEG"):
        check(stream.getvalue())


CHUNK = struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))


@pytest.mark.parametrize(
    ("kind", "start", "piece"),
    [
        ("PNG", 33, CHUNK),
        ("JPEG", 2, b"\xff\xef\0\2"),
        ("JPEG", 2, b"\xff"),
        ("GIF", 25, b"\x21\xfe\1a\0"),
    ],
    ids=str,
)
def test_an_image_in_a_great_many_pieces_is_refused(kind: str, start: int, piece: bytes) -> None:
    data = picture(kind)
    check(data[:start] + piece * 500 + data[start:])
    with pytest.raises(ImageError, match="not an image that can be read"):
        check(data[:start] + piece * 10_000 + data[start:])


@pytest.mark.parametrize("kind", formats.DEFAULT_FORMATS)
def test_a_large_photograph_is_decoded(kind: str) -> None:
    noise = Image.effect_noise((2048, 2048), 64)
    stream = io.BytesIO()
    noise.save(stream, kind, icc_profile=bytes(1 << 20), exif=bytes(1 << 15))
    check(stream.getvalue(), 1 << 22)
    image = formats.open_image(stream, formats.DEFAULT_FORMATS)
    image.load()
    assert image.size == noise.size


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    stream = io.BytesIO()
    Image.new("L", (512, 512)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    check(data)
    first = data.index(formats.SCAN_START)
    second = data.index(formats.SCAN_START, first + 1)
    with pytest.raises(ImageError, match="more than 100 scans"):
        check(data[:second] + data[first:second] * 100 + data[second:])


@pytest.mark.parametrize("compression", formats.BMP_RUN_LENGTHS)
def test_a_bmp_with_run_lengths_is_refused(compression: int) -> None:
    stream = io.BytesIO()
    Image.new("L", (64, 64)).save(stream, "BMP")
    data = bytearray(stream.getvalue())
    data[30:34] = struct.pack("<I", compression)
    with pytest.raises(ImageError, match="run-length"):
        check(bytes(data))


@given(st.binary(max_size=200), st.sampled_from([b"", *map(picture, formats.DEFAULT_FORMATS)]))
def test_any_bytes_pass_or_are_refused(data: bytes, start: bytes) -> None:
    with contextlib.suppress(ImageError):
        check(start[: len(start) // 2] + data)


def test_a_data_url_is_read() -> None:
    data = picture()
    encoded = base64.b64encode(data).decode()
    for start in (
        "data:image/png;base64,",
        "DATA:Image/PNG;charset=x;BASE64,",
        "data:;base64,",
        "data:base64,",
        "data:application/octet-stream;base64,",
    ):
        assert formats.decode_data_url(start + encoded, LIMITS) == data


@given(st.binary(max_size=200))
def test_base64_is_read_in_every_clear_form(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    lines = "\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
    for text in (
        encoded,
        encoded.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        lines,
        lines + "\n",
        " " + lines.replace("\r\n", " "),
        quote(encoded, safe=""),
        quote(lines, safe=""),
        quote(encoded, safe="").lower() if encoded.islower() else encoded,
    ):
        assert formats.decode_data_url(f"data:image/png;base64,{text}", LIMITS) == data


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:", "without base64"),
        ("data:,", "without base64"),
        ("data:image/png,abc", "without base64"),
        ("data:image/png;base64", "without base64"),
        ("data:image/png;utf8,abc", "without base64"),
        ("data:image/svg+xml;utf8,<svg/>", "without base64"),
        ("data:image/png;base64,A", "malformed"),
        ("data:image/png;base64,!!!!", "malformed"),
        ("data:image/png;base64,AA==AAAA", "malformed"),
        ("data:image/png;base64,AA%20AA", "malformed"),
        ("data:image/png;base64,ééé=", "malformed"),
        ("data:image/png;base64," + "A" * 1_400_000, "more than 1 MB"),
    ],
    ids=lambda text: text[:40],
)
def test_a_data_url_that_is_none_is_refused(url: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as refused:
        formats.decode_data_url(url, LIMITS)
    assert len(str(refused.value)) < 200


def test_a_large_data_url_is_refused_before_it_is_decoded() -> None:
    url = "data:image/png;base64," + "A" * (40 * LIMITS.size)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError):
            formats.decode_data_url(url, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMITS.size


def test_formats_are_an_operator_s_choice() -> None:
    allowed = formats.read_formats({"ALLOWED_IMAGE_FORMATS": "png, ICO"})
    assert allowed == ("PNG", "ICO")
    with pytest.raises(ImageError, match="formats: PNG, ICO"):
        formats.check(picture("JPEG"), PIXELS, allowed)
    with pytest.raises(ValueError, match="ALLOWED_IMAGE_FORMATS has 'WORD'"):
        formats.read_formats({"ALLOWED_IMAGE_FORMATS": "WORD"})


@pytest.mark.parametrize("background", [0, 65535])
def test_16_bits_of_grey_are_shown_as_8(background: int) -> None:
    stream = io.BytesIO()
    image = Image.new("I;16", (4, 1), background)
    for column, value in enumerate((0, 257, 32896, 65535)):
        image.putpixel((column, 0), value)
    image.save(stream, "PNG")
    seen = formats.open_to_decode(stream, formats.DEFAULT_FORMATS).convert("RGB")
    assert [seen.getpixel((column, 0)) for column in range(4)] == [
        (grey,) * 3 for grey in (0, 1, 128, 255)
    ]

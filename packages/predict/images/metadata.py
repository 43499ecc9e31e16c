"""Limits what Pillow reads of an image beside its pixels.

Promises: once this is imported, metadata cost little memory and time, whatever they contain. By
itself Pillow inflates texts of a PNG to 64 Mi characters, up to 256 MB, of 70 KB; copies all EXIF
data of a JPEG for each further segment; and makes an object of each number where it looks for a
resolution. Only what the orientation may depend on is read, up to MAX_METADATA bytes; the rest is
skipped, and the image remains valid. Refuses a JPEG with two frame headers, as libjpeg does.
"""

from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

# A JPEG's EXIF data have one segment, of at most this size.
MAX_METADATA = 1 << 16

INFO = ("exif", "xmp", "icc_profile")
PNG_METADATA, PNG_PROFILE = (b"tEXt", b"zTXt", b"iTXt", b"eXIf"), b"iCCP"
EXIF_SEGMENT = 0xFFE1  # and XMP


class _PngStream(PngImagePlugin.PngStream):
    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        if cid in PNG_METADATA:
            self.text_memory += length  # Pillow adds the characters
        if cid == PNG_PROFILE or (cid in PNG_METADATA and self.text_memory > MAX_METADATA):
            assert self.fp is not None
            return ImageFile._safe_read(self.fp, length)  # for the checksum
        return super().call(cid, pos, length)


def _read_exif_and_xmp(image: JpegImagePlugin.JpegImageFile, marker: int) -> None:
    before = image.info.get("exif", b"")
    JpegImagePlugin.APP(image, marker)
    if len(image.info.get("exif", b"")) > MAX_METADATA:
        image.info["exif"] = before
    image.app.clear()
    image.applist.clear()


def _read_frame(image: JpegImagePlugin.JpegImageFile, marker: int) -> None:
    if image.layer:  # each adds up to 21,000
        raise SyntaxError("a second frame header")
    JpegImagePlugin.SOF(image, marker)


def _replace_readers() -> None:
    PngImagePlugin.PngStream = _PngStream  # type: ignore[misc]
    replaced: dict[Any, Any] = {  # libjpeg reads them itself
        JpegImagePlugin.APP: JpegImagePlugin.Skip,
        JpegImagePlugin.COM: JpegImagePlugin.Skip,
        JpegImagePlugin.DQT: JpegImagePlugin.Skip,
        JpegImagePlugin.SOF: _read_frame,
    }
    for marker, (name, description, handler) in JpegImagePlugin.MARKER.items():
        read: Any = replaced.get(handler, handler)
        if marker == EXIF_SEGMENT:
            read = _read_exif_and_xmp
        JpegImagePlugin.MARKER[marker] = (name, description, read)
    JpegImagePlugin.JpegImageFile._read_dpi_from_exif = lambda self: None  # type: ignore[method-assign]


def drop_large(image: Image.Image) -> None:
    """Removes metadata that are larger than any that are needed, before anything looks at them."""
    for name in INFO:
        if len(image.info.get(name) or b"") > MAX_METADATA:
            del image.info[name]


_replace_readers()
